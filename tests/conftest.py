"""Options and fixtures of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Folders of reference vectors and of real images, which are not part of the repository."""
    parser.addoption(
        "--golden-dir",
        default=str(ROOT.parent / "shared" / "golden"),
        help="folder of reference vectors of the released implementations",
    )
    parser.addoption(
        "--data-dir",
        default=str(ROOT.parent / "shared" / "data"),
        help="folder of small real data sets (coco/, bccd/)",
    )


def _folder(request: pytest.FixtureRequest, option: str) -> Path:
    path = Path(request.config.getoption(option)).resolve()
    if not path.is_dir():
        pytest.skip(f"{option} {path} does not exist")
    return path


@pytest.fixture(scope="session")
def golden_dir(request: pytest.FixtureRequest) -> Path:
    """Folder of reference vectors; the test is skipped where it is absent."""
    return _folder(request, "--golden-dir")


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """Folder of small real data sets; the test is skipped where it is absent."""
    return _folder(request, "--data-dir")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
