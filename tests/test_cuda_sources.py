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
from torch.utils.cpp_extension import COMMON_NVCC_FLAGS, include_paths

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "csrc").rglob("*.cu"))
HEADERS = sorted((ROOT / "csrc").rglob("*.h"))
ARCHITECTURES = ("80", "90")
# What the code of a kernel file must hold: loads and additions of four numbers at once.
WIDE_INSTRUCTIONS = {
    "ms_deform_attn_cuda": (r"ld\.global\.nc\.v4", r"red\.global\.add\.v4\.f32"),
    "ms_deform_attn_fused_cuda": (r"ld\.global\.nc\.v4", r"red\.global\.add\.v4\.f32"),
}


def load_setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sparse_detr_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_source(nvcc: Path, source: Path, folder: Path) -> str:
    """Compiles for all architectures, and to PTX for the last; gives what the compilers said.

    The PTX files stay in the folder.
    """
    includes = [*include_paths(), sysconfig.get_paths()["include"]]
    command = [str(nvcc), "-c", str(source), "-o", str(folder / "object.o"), "-O3", "-std=c++17"]
    command += ["-Xptxas", "-v", "-Xcompiler", "-fPIC,-Wall", "-DSPARSE_DETR_WITH_CUDA"]
    command += [*COMMON_NVCC_FLAGS, "--threads", "2", "--keep", "--keep-dir", str(folder)]
    for architecture in ARCHITECTURES:
        command += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    command += ["-gencode", f"arch=compute_{architecture},code=compute_{architecture}"]
    for path in includes:
        command += ["-isystem", path]
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
    said = compile_source(toolkit / "bin" / "nvcc", source, tmp_path)
    assert "warning" not in said.lower(), said
    spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert all(pair == ("0", "0") for pair in spilled), said
    if "__global__" in source.read_text(encoding="utf-8"):
        assert spilled, f"ptxas reported no kernel: {said}"
        for architecture in ARCHITECTURES:
            assert f"sm_{architecture}" in said
    newest = [path for path in tmp_path.glob("*.ptx") if f"_{ARCHITECTURES[-1]}" in path.name]
    for instruction in WIDE_INSTRUCTIONS.get(source.stem, ()):
        assert any(re.search(instruction, path.read_text(encoding="utf-8")) for path in newest)


def test_the_files_that_are_looked_into_exist() -> None:
    assert WIDE_INSTRUCTIONS.keys() <= {source.stem for source in SOURCES}


def test_only_headers_that_small_toolkits_have_are_included() -> None:
    for source in [*SOURCES, *HEADERS]:
        assert "ATen/cuda/" not in re.sub(r"//.*", "", source.read_text(encoding="utf-8"))


def test_every_launch_is_checked() -> None:
    launches = 0
    for source in [*SOURCES, *HEADERS]:
        text = source.read_text(encoding="utf-8")
        assert text.count("<<<") == text.count("C10_CUDA_KERNEL_LAUNCH_CHECK();")
        launches += text.count("<<<")
    assert launches > 0


def test_every_operator_guards_its_device() -> None:
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        operators = re.findall(r'm\.impl\("', text)
        assert text.count("CUDAGuard guard(") == len(operators), source.name
