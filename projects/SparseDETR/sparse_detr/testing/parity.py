"""Proves the package equal to reference vectors: ``python -m sparse_detr.testing.parity DIR``.

Runs every case of a folder and of the folders directly below it, whatever systems they are of, in
float64 with the released-behaviour preset, prints one line per case with its worst error, and ends
with exit code 1 if anything missed, 2 if there is no case.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

from . import (
    detr_cases,
    dino_cases,
    first_stage_cases,
    focus_cases,
    pnp_cases,
    smca_cases,
    sparse_detr_cases,
)
from .comparison import Case

# One function per system: yields the cases that it finds in a folder, none if it knows none.
_SYSTEMS: tuple[Callable[[Path], Iterator[Case]], ...] = (
    sparse_detr_cases.cases,
    detr_cases.cases,
    dino_cases.cases,
    focus_cases.cases,
    smca_cases.cases,
    pnp_cases.cases,
    first_stage_cases.cases,
)

# What a damaged file can lead to; one such case must not keep the others from being reported.
_FAULTS_OF_A_CASE = (
    ValueError,
    LookupError,
    OSError,
    TypeError,
    AttributeError,
    RuntimeError,
    AssertionError,
    BadZipFile,
)


def golden_cases(folder: Path) -> Iterator[Case]:
    """Name and runner of every case found in a folder and in those directly below it.

    Args:
        folder: Holds the files of cases, or folders that do; what is not there is not run.

    Raises:
        ValueError: A listing of cases cannot be read.
    """
    for place in [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]:
        for cases in _SYSTEMS:
            yield from cases(place)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all cases of a folder and gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_detr.testing.parity", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="folder of reference vectors")
    folder: Path = parser.parse_args(arguments).folder
    if not folder.is_dir():
        print(f"parity: {folder} is not a folder", file=sys.stderr)
        return 2
    try:
        cases = list(golden_cases(folder))
    except ValueError as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    if not cases:
        print(f"parity: no case found in {folder}", file=sys.stderr)
        return 2
    missed = 0
    for name, run in cases:
        try:
            results = run()
        except _FAULTS_OF_A_CASE as error:
            print(f"MISS {name}: cannot be run: {type(error).__name__}: {error}", flush=True)
            results, missed = [], missed + 1
        for comparison in results:
            print(comparison.line(), flush=True)
            missed += not comparison.passed
    print(f"{len(cases)} cases, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
