"""Proves the package equal to reference vectors: ``python -m sparse_detr.testing.parity DIR``.

Runs every case of a folder (``cases.json``, ``ops.npz``, ``backbone_*.npz``, ``full_*.npz``) in
float64 with the released-behaviour preset, prints one line per case with its worst error, and ends
with exit code 1 if anything missed, 2 if the folder holds no case.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from .backbone_cases import run_backbone_case
from .comparison import Comparison
from .full_size_case import run_full_size_case
from .operator_cases import run_operator_cases
from .small_cases import run_small_case

Case = tuple[str, Callable[[], list[Comparison]]]


def golden_cases(folder: Path) -> Iterator[Case]:
    """Name and runner of every case found in a folder.

    Args:
        folder: Holds ``cases.json`` and arrays; what is not there is not run.

    Raises:
        ValueError: ``cases.json`` is not a mapping of names to recipes.
    """
    listing = folder / "cases.json"
    if listing.is_file():
        cases = json.loads(listing.read_text(encoding="utf-8"))
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
    missed = ran = 0
    for name, run in golden_cases(folder):
        try:
            results = run()
        except (ValueError, KeyError, OSError) as error:
            print(f"MISS {name}: cannot be run: {error}", flush=True)
            results, missed = [], missed + 1
        for comparison in results:
            print(comparison.line(), flush=True)
            missed += not comparison.passed
        ran += 1
    if not ran:
        print(f"parity: no case found in {folder}", file=sys.stderr)
        return 2
    print(f"{ran} cases, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
