"""The cases of Sparse DETR and Deformable DETR: ``cases.json``, operators, backbones, full size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from .backbone_cases import run_backbone_case
from .comparison import Case, Comparison
from .full_size_case import run_full_size_case
from .operator_cases import run_operator_cases
from .small_cases import run_small_case


def cases(folder: Path) -> Iterator[Case]:
    """Name and runner of every case of these systems in a folder.

    Args:
        folder: Holds ``cases.json``, ``ops.npz``, ``backbone_*.npz`` or ``full_*.npz``; what is not
            there is not run.

    Raises:
        ValueError: ``cases.json`` is not JSON, or not a mapping of names to recipes.
    """
    listing = folder / "cases.json"
    if listing.is_file():
        try:
            recipes = json.loads(listing.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{listing} is not JSON: {error}") from error
        if not isinstance(recipes, dict):
            raise ValueError(f"{listing} must hold a mapping of names to recipes")
        for name, meta in recipes.items():
            yield name, partial(_one, partial(run_small_case, folder, name, meta))
    if (folder / "ops.npz").is_file():
        yield "ops", partial(run_operator_cases, folder)
    for path in sorted(folder.glob("backbone_*.npz")):
        yield path.stem, partial(_one, partial(run_backbone_case, path))
    for path in sorted(folder.glob("full_*_rho*.npz")):
        yield path.stem, partial(_one, partial(run_full_size_case, path))


def _one(run: Callable[[], Comparison]) -> list[Comparison]:
    return [run()]
