"""Proves the package equal to reference vectors: ``python -m sparse_detr.testing.parity DIR``.

Runs every case of a folder (``cases.json``, ``ops.npz``, ``backbone_*.npz``, ``full_*.npz``), or of
``sparse_detr`` below it where the folder holds those of several systems, in float64 with the
released-behaviour preset, prints one line per case with its worst error, and ends with exit code 1
if anything missed, 2 if the folder holds no case.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

from .backbone_cases import run_backbone_case
from .comparison import Comparison
from .full_size_case import run_full_size_case
from .operator_cases import run_operator_cases
from .small_cases import run_small_case

Case = tuple[str, Callable[[], list[Comparison]]]

SYSTEM = "sparse_detr"
"""Name of this project's folder where the vectors of several systems lie side by side."""


def cases_folder(folder: Path) -> Path:
    """Gives the folder that holds the cases: ``sparse_detr`` below ``folder`` if it is there."""
    below = folder / SYSTEM
    return below if below.is_dir() else folder


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
    """Name and runner of every case found in a folder.

    Args:
        folder: Holds ``cases.json`` and arrays, itself or in ``sparse_detr``; what is not there is
            not run.

    Raises:
        ValueError: ``cases.json`` is not JSON, or not a mapping of names to recipes.
    """
    folder = cases_folder(folder)
    listing = folder / "cases.json"
    if listing.is_file():
        try:
            cases = json.loads(listing.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{listing} is not JSON: {error}") from error
        if not isinstance(cases, dict):
            raise ValueError(f"{listing} must hold a mapping of names to recipes")
        for name, meta in cases.items():
            yield name, partial(_one, partial(run_small_case, folder, name, meta))
    if (folder / "ops.npz").is_file():
        yield "ops", partial(run_operator_cases, folder)
    for path in sorted(folder.glob("backbone_*.npz")):
        yield path.stem, partial(_one, partial(run_backbone_case, path))
    for path in sorted(folder.glob("full_*_rho*.npz")):
        yield path.stem, partial(_one, partial(run_full_size_case, path))


def _one(run: Callable[[], Comparison]) -> list[Comparison]:
    return [run()]


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
