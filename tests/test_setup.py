"""Packaging: what is shipped, and what happens where the operators cannot be built."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sparse_detr
from test_cuda_sources import load_setup

ROOT = Path(__file__).resolve().parents[1]


def test_the_version_is_the_packages_own() -> None:
    assert load_setup().read_version() == sparse_detr.__version__


def test_every_config_folder_is_a_package(tmp_path: Path) -> None:
    for name in ("configs/a.py", "configs/models/deep/b.py", "configs/notes/readme.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    packages = load_setup().config_packages(tmp_path)
    assert packages == ["sparse_detr.configs", "sparse_detr.configs.models.deep"]


def test_detectron2_is_not_a_requirement_and_torch_is_not_pinned() -> None:
    requirements = load_setup().REQUIREMENTS
    assert "torch>=2.6" in requirements
    assert not any(requirement.startswith("detectron2") for requirement in requirements)


def fake_compiler(folder: Path) -> str:
    path = folder / "broken-c++"
    path.write_text("#!/bin/sh\necho 'ld: cannot find -lc' >&2\nexit 1\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_compiler_that_is_missing_or_broken_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = load_setup()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in setup.compiler_problem()
    monkeypatch.setenv("CXX", fake_compiler(tmp_path))
    assert "cannot find -lc" in setup.compiler_problem()


def test_without_a_compiler_the_package_installs_without_operators(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SPARSE_DETR_NO_EXTENSION", raising=False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert load_setup().extension_arguments() == {}
    (line,) = capsys.readouterr().err.splitlines()
    assert "no compiled operators, the package uses its pure-torch path: cannot run" in line


def test_the_operators_can_be_left_out_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARSE_DETR_NO_EXTENSION", "1")
    assert load_setup().extension_arguments() == {}
    assert "SPARSE_DETR_NO_EXTENSION=1" in capsys.readouterr().err


def test_without_torch_the_message_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSE_DETR_NO_EXTENSION", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match=r"Install torch first.*--no-build-isolation"):
        load_setup().extension_arguments()


def test_lack_of_cuda_is_a_reason_and_never_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_CUDA", "1")
    monkeypatch.setenv("CUDA_HOME", "/no/such/folder")
    setup = load_setup()
    assert setup.cuda_toolkit() is None
    assert setup.cuda_problem(None) is not None


def test_a_wheel_holds_the_package_and_the_configs(tmp_path: Path) -> None:
    environment = {**os.environ, "SPARSE_DETR_NO_EXTENSION": "1"}
    build = ["build", "--build-base", str(tmp_path / "build")]
    egg = ["egg_info", "--egg-base", str(tmp_path)]
    wheel = ["bdist_wheel", "--dist-dir", str(tmp_path / "dist")]
    wheel += ["--bdist-dir", str(tmp_path / "bdist")]
    result = subprocess.run(
        [sys.executable, "setup.py", "-q", *egg, *build, *wheel],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    (archive,) = (tmp_path / "dist").glob("sparse_detr-*.whl")
    names = set(zipfile.ZipFile(archive).namelist())
    assert {"sparse_detr/__init__.py", "sparse_detr/py.typed"} <= names
    page_files = "projects/SparseDETR/sparse_detr/visualization/sparsity/page_files"
    page = {
        f"sparse_detr/visualization/sparsity/page_files/{path.name}"
        for path in (ROOT / page_files).iterdir()
    }
    assert page
    assert page <= names
    configs = {f"sparse_detr/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.py")}
    assert configs
    assert configs <= names
