"""Compares small golden cases: every stage, loss and gradient of a whole detector."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .comparison import Array, Comparison
from .golden_model import load_released, small_model
from .small_case_record import CaseRecord, record_case

# What a case must have been compared on, wherever its file has it.
_COVERED = (
    "out/",
    "loss/loss_",
    "match/",
    "post/",
    "dec/reference_in",
    "corr/",
    "dam/flat",
    "dam/binary_target",
    "score/sparse_token_nums",
    "score/topk_indices",
    "two_stage/topk_indices",
)


def run_small_case(folder: Path, name: str, meta: Mapping[str, Any]) -> Comparison:
    """Compares one case in float64 with the released-behaviour preset.

    Args:
        folder: Folder with ``<name>.npz`` and ``<name>_grads.npz``.
        name: Of the case.
        meta: Its entry of ``cases.json``.

    Raises:
        FileNotFoundError: A file of the case is missing.
    """
    golden = _load(folder / f"{name}.npz")
    gradients = _load(folder / f"{name}_grads.npz")
    model = small_model(meta)
    prefix = "weights/"
    load_released(model, {k[len(prefix) :]: v for k, v in golden.items() if k.startswith(prefix)})
    return compare(name, record_case(model, golden), golden, gradients)


def _load(path: Path) -> dict[str, Array]:
    with np.load(path) as file:
        return dict(file)


def compare(
    name: str,
    record: CaseRecord,
    golden: Mapping[str, Array],
    gradients: Mapping[str, Array],
) -> Comparison:
    """Differences between a run and its reference.

    Args:
        name: Of the case.
        record: Of the run.
        golden: Reference arrays.
        gradients: Reference gradients; a parameter that is not there must have gradient zero.
    """
    comparison = Comparison(name)
    for key, value in record.numbers.items():
        comparison.close(key, value, golden[key])
    for key, value in record.integers.items():
        comparison.same(key, value, golden[key])
    weights = json.loads(str(golden["loss_weights_json"]))
    for key, weight in record.loss_weights.items():
        comparison.close(f"weight of {key}", weight, weights[key])
    for key, value in record.gradients.items():
        comparison.close(key, value, gradients.get(key, np.zeros_like(value)))
    recorded = {**record.numbers, **record.integers}
    missing = sorted(k for k in golden if k.startswith(_COVERED) and k not in recorded)
    missing += sorted(
        k for k in gradients if k.startswith(("grad/", "grad_in/")) and k not in record.gradients
    )
    comparison.same("arrays of the reference that the run lacks", missing, [])
    return comparison
