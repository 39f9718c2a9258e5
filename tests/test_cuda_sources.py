"""The CUDA sources compile, without a GPU: no warning, no register spilled to memory."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "csrc").rglob("*.cu"))
ARCHITECTURES = ("80", "90")


def load_setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sparse_detr_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_source(nvcc: Path, source: Path, target: Path) -> str:
    """Compiles to an object file for all architectures; gives what nvcc and ptxas said."""
    includes = [*include_paths(), sysconfig.get_paths()["include"]]
    command = [str(nvcc), "-c", str(source), "-o", str(target), "-O3", "-std=c++17"]
    command += ["-Xptxas", "-v", "-Xcompiler", "-fPIC,-Wall", "-DSPARSE_DETR_WITH_CUDA"]
    command += ["--expt-relaxed-constexpr", "--threads", "2"]
    for architecture in ARCHITECTURES:
        command += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    for folder in includes:
        command += ["-isystem", folder]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    return said


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_compiles_for_every_architecture_without_warnings_or_spills(
    source: Path, tmp_path: Path
) -> None:
    toolkit = load_setup().cuda_toolkit()
    if toolkit is None:
        pytest.skip("no CUDA toolkit with nvcc and headers was found")
    if torch.version.cuda is None:
        pytest.skip("torch was built without CUDA: its headers do not fit nvcc")
    said = compile_source(toolkit / "bin" / "nvcc", source, tmp_path / "object.o")
    assert "warning" not in said.lower(), said
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert all(pair == ("0", "0") for pair in spilled), said
    if "__global__" in source.read_text(encoding="utf-8"):
        assert spilled, f"ptxas reported no kernel: {said}"
        for architecture in ARCHITECTURES:
            assert f"sm_{architecture}" in said


def test_only_headers_that_small_toolkits_have_are_included() -> None:
    for source in SOURCES:
        assert "ATen/cuda/" not in re.sub(r"//.*", "", source.read_text(encoding="utf-8"))


def test_every_launch_is_checked() -> None:
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        assert text.count("<<<") == text.count("C10_CUDA_KERNEL_LAUNCH_CHECK();")
