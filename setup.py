"""Packaging of sparse-detr: the Python package, its configs and the compiled operators.

Install torch first, then `pip install --no-build-isolation .`: the operators are compiled against
the torch that is here.

Environment:
    FORCE_CUDA=1                 build the CUDA kernels although no GPU is visible
    TORCH_CUDA_ARCH_LIST         GPU architectures to build for, as in torch ("8.0;9.0+PTX")
    MAX_JOBS                     number of parallel compile jobs
    SPARSE_DETR_NO_EXTENSION=1   install without compiled operators; the package then uses its
    pure-torch path
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
PACKAGE_PARENT = "projects/SparseDETR"
REQUIREMENTS = [
    "torch>=2.6",
    "torchvision",
    "fvcore",
    "pycocotools",
    "scipy",
    "numpy",
    "pillow",
    "omegaconf",
    "matplotlib",
    "tensorboard",
]
DEFAULT_CUDA_ARCHITECTURES = "8.0;9.0+PTX"
NO_OPERATORS = "no compiled operators, the package uses its pure-torch path"


def say(message: str) -> None:
    """Prints one line where pip shows it (-v) and where a failing build ends."""
    print(f"sparse-detr setup: {message}", file=sys.stderr, flush=True)


def read_version() -> str:
    """Gives `__version__` of the package without importing it."""
    source = ROOT / PACKAGE_PARENT / "sparse_detr" / "__init__.py"
    match = re.search(r'^__version__ = "([^"]+)"', source.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise SystemExit(f'{source}: no line __version__ = "..." found')
    return match.group(1)


def config_packages(root: Path = ROOT) -> list[str]:
    """Names `configs` and its sub-folders as packages inside `sparse_detr`."""
    folders = {path.parent for path in (root / "configs").rglob("*.py")}
    folders.discard(root / "configs")
    names = [
        ".".join(("sparse_detr", *folder.relative_to(root).parts)) for folder in sorted(folders)
    ]
    return ["sparse_detr.configs", *names]


def csrc(pattern: str) -> list[str]:
    """Gives the files of `csrc` that match, relative to the repository."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob(pattern))


def compiler_problem() -> str | None:
    """Says why no C++ extension can be compiled here; None where one can."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <Python.h>\n#include <vector>\nint main() { return 0; }\n")
        include = sysconfig.get_paths()["include"]
        command = [*compiler, "-c", str(source), f"-I{include}", "-o", str(Path(folder, "probe.o"))]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"cannot run the C++ compiler {compiler[0]!r} ({error.strerror})"
    if result.returncode != 0:
        first_line = (result.stderr.strip() or f"exit status {result.returncode}").splitlines()[0]
        return f"the C++ compiler {compiler[0]!r} fails on a small program ({first_line})"
    return None


def cuda_toolkit() -> Path | None:
    """Gives the folder of the CUDA toolkit: CUDA_HOME where set, else where nvcc and headers are.

    The nvcc on the PATH may be a link or a script that stands outside its toolkit.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc")
    if named:
        candidates = [Path(named)]
    else:
        beside = [Path(nvcc).resolve().parents[1]] if nvcc else []
        candidates = [*beside, Path("/usr/local/cuda")]
    for folder in candidates:
        if (folder / "bin/nvcc").exists() and (folder / "include/cuda_runtime_api.h").exists():
            return folder
    return None


def cuda_problem(toolkit: Path | None) -> str | None:
    """Says why the CUDA kernels are left out; None where they can be built."""
    import torch

    if torch.version.cuda is None:
        return "torch was built without CUDA"
    if toolkit is None:
        return "no CUDA toolkit with nvcc and headers was found (set CUDA_HOME)"
    if not (torch.cuda.is_available() or os.environ.get("FORCE_CUDA") == "1"):
        return "no GPU is visible (FORCE_CUDA=1 builds them all the same)"
    version = subprocess.run(
        [str(toolkit / "bin/nvcc"), "--version"], capture_output=True, text=True, check=False
    ).stdout
    match = re.search(r"release (\d+)\.", version)
    if match is None or match.group(1) != torch.version.cuda.split(".")[0]:
        got = match.group(1) if match else "unknown"
        return f"nvcc is release {got}, torch was built with CUDA {torch.version.cuda}"
    return None


def extension() -> Any:
    """Gives the extension `sparse_detr._C`, with the CUDA kernels where they can be built."""
    toolkit = cuda_toolkit()
    if toolkit is not None:
        # Read when torch.utils.cpp_extension is imported; it may be imported nowhere before this.
        os.environ["CUDA_HOME"] = str(toolkit)
    import torch
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    # Without OpenMP at compile and at link time at::parallel_for silently runs on one thread.
    # Apple's clang has none.
    openmp = [] if sys.platform == "darwin" else ["-fopenmp"]
    # Floating point exceptions are never read: promising that lets the loop over sampling points
    # vectorise. No result depends on it.
    cxx = ["-O3", "-g0", "-Wall", "-fno-trapping-math", *openmp]
    problem = cuda_problem(toolkit)
    if problem is not None:
        say(f"building the CPU operators only: {problem}")
        return CppExtension(
            "sparse_detr._C",
            csrc("*.cpp"),
            depends=csrc("*.h"),
            extra_compile_args={"cxx": cxx},
            extra_link_args=openmp,
        )
    if not torch.cuda.is_available():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_CUDA_ARCHITECTURES)
    say(f"building CPU and CUDA operators for {os.environ.get('TORCH_CUDA_ARCH_LIST', 'this GPU')}")
    define = "-DSPARSE_DETR_WITH_CUDA"
    return CUDAExtension(
        "sparse_detr._C",
        [*csrc("*.cpp"), *csrc("*.cu")],
        depends=csrc("*.h"),
        extra_compile_args={"cxx": [*cxx, define], "nvcc": ["-O3", define]},
        extra_link_args=openmp,
    )


def extension_arguments() -> dict[str, Any]:
    """Gives the arguments of `setup` that build the extension; none where it cannot be built."""
    if os.environ.get("SPARSE_DETR_NO_EXTENSION") == "1":
        say(f"{NO_OPERATORS}: SPARSE_DETR_NO_EXTENSION=1")
        return {}
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"sparse-detr setup: cannot import torch ({error}). Install torch first, then run pip "
            "with --no-build-isolation; or set SPARSE_DETR_NO_EXTENSION=1 to install without "
            "compiled operators"
        ) from error
    problem = compiler_problem()
    if problem is not None:
        say(f"{NO_OPERATORS}: {problem}")
        return {}
    module = extension()
    from torch.utils.cpp_extension import BuildExtension

    return {"ext_modules": [module], "cmdclass": {"build_ext": BuildExtension}}


def main() -> None:
    """Runs setuptools."""
    setup(
        name="sparse-detr",
        version=read_version(),
        description="Sparse DETR and its relatives for Detectron2",
        python_requires=">=3.10",
        install_requires=REQUIREMENTS,
        packages=[*find_packages(PACKAGE_PARENT), *config_packages()],
        package_dir={"": PACKAGE_PARENT, "sparse_detr.configs": "configs"},
        extras_require={"video": ["opencv-python-headless"]},
        package_data={
            "sparse_detr": ["py.typed"],
            "sparse_detr.visualization.sparsity": ["page_files/*"],
        },
        **extension_arguments(),
    )


if __name__ == "__main__":
    main()
