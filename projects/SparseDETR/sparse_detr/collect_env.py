"""`python -m sparse_detr.collect_env`: what a bug report needs to say about the machine.

It never raises: what cannot be found out is reported as such, because it is run where things fail.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial

_VARIABLES = (
    "TORCH_CUDA_ARCH_LIST",
    "FORCE_CUDA",
    "SPARSE_DETR_BACKEND",
    "SPARSE_DETR_CPU_CAPABILITY",
)


def collect_environment() -> list[tuple[str, str]]:
    """Gives names and facts, in the order to print them."""
    facts: list[tuple[str, Callable[[], str]]] = [
        ("platform", platform.platform),
        ("python", lambda: f"{platform.python_version()} ({sys.executable})"),
        ("sparse_detr", lambda: _package("sparse_detr")),
        ("torch", lambda: _package("torch")),
        ("torchvision", lambda: _package("torchvision")),
        ("detectron2", lambda: _package("detectron2")),
        ("numpy", lambda: _package("numpy")),
        ("pycocotools", lambda: _package("pycocotools")),
        ("torch built for CUDA", _torch_cuda),
        ("torch GPU architectures", _torch_architectures),
        ("GPUs", _gpus),
        ("CPU threads of torch", _threads),
        ("CUDA_HOME", _cuda_home),
        ("nvcc", lambda: _version_line("nvcc")),
        ("C++ compiler", lambda: _version_line(os.environ.get("CXX", "c++"))),
        ("compiled operators", _operators),
        ("CPU instructions of the operators", _cpu_capability),
        ("operators on cpu", lambda: _backend("cpu")),
        ("operators on cuda", lambda: _backend("cuda")),
    ]
    for variable in _VARIABLES:
        facts.append((variable, partial(_variable, variable)))
    return [(name, _ask(question)) for name, question in facts]


def _ask(question: Callable[[], str]) -> str:
    """Gives the answer to a question, or the error that it ended in."""
    try:
        return question()
    # A broken installation fails in any way there is, and this report is what diagnoses it.
    except Exception as error:  # noqa: BLE001
        return f"unknown: {type(error).__name__}: {error}"


def _package(name: str) -> str:
    module = importlib.import_module(name)
    return f"{getattr(module, '__version__', 'without version')} ({module.__file__})"


def _variable(name: str) -> str:
    return os.environ.get(name, "not set")


def _torch_cuda() -> str:
    import torch

    return str(torch.version.cuda or "no")


def _torch_architectures() -> str:
    import torch

    return " ".join(torch.cuda.get_arch_list()) or "none (no GPU is visible)"


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none visible"
    names = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        names.append(f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})")
    return ", ".join(names)


def _threads() -> str:
    import torch

    return str(torch.get_num_threads())


def _cuda_home() -> str:
    # The import warns where there is a toolkit but no GPU, which this report says better.
    noisy = logging.getLogger("torch.utils.cpp_extension")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        from torch.utils.cpp_extension import CUDA_HOME
    finally:
        noisy.setLevel(level)
    return CUDA_HOME or "not found"


def _version_line(program: str) -> str:
    """Gives the line of `program --version` that holds the version."""
    path = shutil.which(program)
    if path is None:
        return f"{program} not found"
    result = subprocess.run(
        [path, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    lines = result.stdout.strip().splitlines() or ["prints no version"]
    return next((line for line in lines if "release" in line), lines[0]) + f" ({path})"


def _operators() -> str:
    from sparse_detr.layers.backend import extension_status

    if extension_status.problem is not None:
        return f"not loaded: {extension_status.problem}"
    openmp = "with OpenMP" if extension_status.with_openmp else "without OpenMP (one thread)"
    if not extension_status.with_cuda:
        return f"loaded, CPU only, {openmp}"
    return f"loaded, CPU and CUDA ({extension_status.cuda_architectures}), {openmp}"


def _cpu_capability() -> str:
    module = importlib.import_module("sparse_detr._C")
    return str(module.cpu_capability())


def _backend(device_type: str) -> str:
    from sparse_detr.layers.backend import describe_backend

    return describe_backend(device_type)


def main() -> int:
    """Prints the report."""
    facts = collect_environment()
    width = max(len(name) for name, _ in facts)
    for name, fact in facts:
        print(f"{name:<{width}}  {fact}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
