"""A case of DETR's family is met only if every array of its file is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparse_detr.testing.detr_cases import run_detr_case

NAME = "detr_prenorm_learned.npz"


def _changed(source: Path, folder: Path, key: str, amount: float) -> Path:
    """A copy of a case in which one number of an array differs, or with an array more."""
    with np.load(source) as stored:
        arrays = dict(stored)
    arrays[key] = arrays.get(key, np.zeros(2)).copy()
    arrays[key].flat[-1] += np.asarray(amount).astype(arrays[key].dtype)
    np.savez(folder / NAME, **arrays)
    return folder / NAME


@pytest.mark.parametrize(
    ("key", "amount"),
    [
        ("out/aux0/pred_boxes", 1e-8),
        ("loss/loss_ce_0", 1e-8),
        ("loss_weight/loss_giou", 1),
        ("grad/backbone.pos.row_embed.weight", 1e-8),
        ("grad_input/feat0", 1e-8),
        ("match/last/b1/query", 1),
        ("mid/hs", 1e-8),
        ("mid/dec_layer1/cross_attn_w_headavg", 1e-8),
        ("post/b1/labels", 1),
        ("mid/pos0", 1e-3),
    ],
)
def test_a_single_number_that_differs_is_a_miss(
    golden_file: Callable[[str], Path], tmp_path: Path, key: str, amount: float
) -> None:
    (comparison,) = run_detr_case(_changed(golden_file(NAME), tmp_path, key, amount))
    assert len(comparison.misses) == 1 and key in comparison.misses[0]


@pytest.mark.parametrize("key", ["out/aux7/pred_logits", "loss/loss_more", "grad/absent"])
def test_an_array_that_the_run_lacks_is_a_miss(
    golden_file: Callable[[str], Path], tmp_path: Path, key: str
) -> None:
    (comparison,) = run_detr_case(_changed(golden_file(NAME), tmp_path, key, 0))
    assert "arrays of the reference that the run lacks" in comparison.line()


def test_a_weight_without_parameter_is_an_error_that_names_it(
    golden_file: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="weight_of_nobody"):
        run_detr_case(_changed(golden_file(NAME), tmp_path, "weight/weight_of_nobody", 0))
