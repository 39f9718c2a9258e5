"""Checks the CUDA operators on this machine's GPU: tests, memory checker, both benchmarks.

    python tools/gpu_check.py [--json-folder FOLDER] [--only STEP ...]

The steps: `tests` runs every test that needs a GPU; `sanitizer` runs the operators' tests under
compute-sanitizer, where it is installed; `operators` and `model` run the benchmarks. All steps run,
whatever the ones before gave; the exit status is 0 where none failed, and the last lines name the
outcome of each, also of one that could not be run.

It ends with an error where there is no GPU or the extension was built without CUDA: a check that
was not made must not look like one that passed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from sparse_detr.collect_env import collect_environment
from sparse_detr.layers.backend import extension_status

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("tests", "sanitizer", "operators", "model")
# Small, yet through every kernel: the checker makes a test some hundred times slower.
_SANITIZED_TESTS = (
    "prime_number_of_queries or empty_input or strided_and_misaligned or not_finite "
    "or attention_map or raw_outputs"
)


@dataclass(frozen=True)
class Step:
    """One program to run; `reason` says why there is none."""

    name: str
    command: tuple[str, ...]
    reason: str = ""


def missing() -> str | None:
    """Says what the check lacks; None where it can run."""
    if not torch.cuda.is_available():
        return "no GPU is visible"
    if not extension_status.with_cuda:
        return "the operators were built without CUDA: set CUDA_HOME and build again"
    return None


def sanitizer() -> str | None:
    """Gives the path of compute-sanitizer; None where it is not installed."""
    found = shutil.which("compute-sanitizer")
    if found is not None:
        return found
    toolkit = Path(os.environ.get("CUDA_HOME") or "/usr/local/cuda")
    for place in (toolkit / "bin", toolkit / "compute-sanitizer"):
        if (place / "compute-sanitizer").is_file():
            return str(place / "compute-sanitizer")
    return None


def plan(names: list[str], folder: Path | None) -> list[Step]:
    """Gives the steps to run.

    Args:
        names: Which of `STEPS`, in order.
        folder: Where the benchmarks write their measurements; None for nowhere.
    """
    pytest = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu")
    steps = []
    for name in names:
        if name == "tests":
            steps.append(Step(name, (*pytest, "tests")))
        elif name == "sanitizer":
            steps.append(_sanitizer_step(name, pytest))
        else:
            script = "benchmark_ops.py" if name == "operators" else "benchmark_model.py"
            output = () if folder is None else ("--json", str(folder / f"gpu_{name}.json"))
            benchmark = (sys.executable, str(ROOT / "tools" / script), "--device", "cuda", *output)
            steps.append(Step(name, benchmark))
    return steps


def _sanitizer_step(name: str, pytest: tuple[str, ...]) -> Step:
    program = sanitizer()
    if program is None:
        return Step(name, (), "compute-sanitizer is not installed (it comes with the CUDA toolkit)")
    checker = (program, "--tool", "memcheck", "--error-exitcode", "1", "--target-processes", "all")
    tests = ("-x", "tests/layers/test_operators_cuda.py", "-k", _SANITIZED_TESTS)
    return Step(name, (*checker, *pytest, *tests))


def run(step: Step) -> str:
    """Runs a step; gives "passed", or what came instead."""
    print(f"\ngpu-check: {step.name}", flush=True)
    if not step.command:
        return f"not run: {step.reason}"
    environment = dict(os.environ)
    if step.name == "sanitizer":
        # Memory that torch keeps for later would hide an access beyond a tensor's end.
        environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
    status = subprocess.run(step.command, cwd=ROOT, env=environment, check=False).returncode
    return "passed" if status == 0 else f"failed with exit status {status}"


def main(arguments: list[str] | None = None) -> int:
    """Runs the steps; gives 0 where none failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json-folder", type=Path, default=None, help="folder for the measurements"
    )
    parser.add_argument(
        "--only", nargs="+", choices=STEPS, default=list(STEPS), help="steps to run (default: all)"
    )
    options = parser.parse_args(arguments)
    for name, fact in collect_environment():
        print(f"{name}: {fact}")
    problem = missing()
    if problem is not None:
        print(f"gpu-check: nothing was checked: {problem}", file=sys.stderr)
        return 1
    folder = options.json_folder
    if folder is not None:
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
    outcomes = {step.name: run(step) for step in plan(options.only, folder)}
    print()
    for name, outcome in outcomes.items():
        print(f"gpu-check: {name}: {outcome}")
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
