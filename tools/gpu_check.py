"""Checks the CUDA operators on this machine's GPU: the tests that need one, then the benchmark.

    python tools/gpu_check.py [--json FILE]

It ends with an error where there is no GPU or the extension was built without CUDA: a check that
was not made must not look like one that passed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from sparse_detr.collect_env import collect_environment
from sparse_detr.layers.backend import extension_status

ROOT = Path(__file__).resolve().parents[1]


def missing() -> str | None:
    """Says what the check lacks; None where it can run."""
    if not torch.cuda.is_available():
        return "no GPU is visible"
    if not extension_status.with_cuda:
        return "the operators were built without CUDA: set CUDA_HOME and build again"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Runs the tests and the benchmark; gives the first exit status that is not zero."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=None, help="file for the measurements")
    options = parser.parse_args(arguments)
    for name, fact in collect_environment():
        print(f"{name}: {fact}")
    problem = missing()
    if problem is not None:
        print(f"gpu-check: nothing was checked: {problem}", file=sys.stderr)
        return 1
    benchmark = [str(ROOT / "tools" / "benchmark_ops.py"), "--device", "cuda"]
    if options.json is not None:
        benchmark += ["--json", str(options.json.resolve())]
    for command in (["-m", "pytest", "-m", "gpu", "tests"], benchmark):
        status = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
