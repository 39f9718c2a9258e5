"""Options and fixtures of the whole suite."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Folders of reference vectors and of real images, which are not part of the repository."""
    shared = ROOT.parent / "shared"
    parser.addoption(
        "--golden-dir",
        default=str(shared / "golden"),
        help="folder of reference vectors of the released implementations, or its parent",
    )
    parser.addoption(
        "--data-dir",
        default=str(shared / "data"),
        help="folder of small real data sets (coco/, bccd/)",
    )
    parser.addoption(
        "--key-lists-dir",
        default=str(shared / "spec" / "state_dict_keys"),
        help="folder of the names and shapes of the released weights (state_dict_*.json)",
    )


@pytest.fixture(autouse=True)
def no_handlers_left_behind() -> Iterator[None]:
    """Takes away the log handlers that a test adds: they hold streams that are closed after it."""
    before = {name: list(logger.handlers) for name, logger in _loggers()}
    yield
    for name, logger in _loggers():
        for handler in list(logger.handlers):
            if handler not in before.get(name, []):
                logger.removeHandler(handler)


def _loggers() -> list[tuple[str, logging.Logger]]:
    known = logging.Logger.manager.loggerDict
    return [(name, known[name]) for name in list(known) if isinstance(known[name], logging.Logger)]


def _folder(request: pytest.FixtureRequest, option: str) -> Path:
    path = Path(request.config.getoption(option)).resolve()
    if not path.is_dir():
        pytest.skip(f"{option} {path} does not exist")
    return path


def _first_there(option: str, folders: Iterable[Path], name: str) -> Path:
    """Gives the first path of that name that exists; skips the test where there is none."""
    *_, last = folders = list(folders)
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{option} {last} has no {name}")


@pytest.fixture(scope="session")
def golden_file(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Finds a file of reference vectors by name; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        golden = _folder(request, "--golden-dir")
        below = sorted(path for path in golden.glob("*") if path.is_dir())
        return _first_there("--golden-dir", (*below, golden), name)

    return find


@pytest.fixture(scope="session")
def data_folder(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Finds a real data set by name, coco/ for example; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        return _first_there("--data-dir", [_folder(request, "--data-dir")], name)

    return find


@pytest.fixture(scope="session")
def key_list(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Finds a list of released weights by name; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        return _first_there("--key-lists-dir", [_folder(request, "--key-lists-dir")], name)

    return find


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
