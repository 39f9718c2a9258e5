"""Every golden vector of a single operation, in float64."""

import numpy as np
import pytest

from sparse_detr.testing.operator_cases import run_operator_cases

GROUPS = (
    "msda",
    "dam",
    "pos",
    "proposal_pos",
    "isig",
    "proposals",
    "masks",
    "token_count",
    "mask_predictor",
    "crit",
)


@pytest.fixture(scope="module")
def comparisons(golden_file):
    return {c.case: c for c in run_operator_cases(golden_file("ops.npz").parent)}


@pytest.mark.parametrize("group", GROUPS)
def test_an_operation_equals_its_golden_vectors(comparisons, group):
    comparison = comparisons[f"ops/{group}"]
    assert comparison.passed, comparison.line()


def test_every_group_of_the_file_is_checked(comparisons):
    assert set(comparisons) == {f"ops/{group}" for group in GROUPS}


def test_the_tables_are_compared_whole(comparisons, golden_file):
    with np.load(golden_file("ops.npz")) as vectors:
        (table,) = (vectors[key] for key in vectors.files if key.startswith("masks/"))
        ratios = vectors["token_count/rho"]
    assert comparisons["ops/masks"].count == len(table) > 0
    assert comparisons["ops/token_count"].count == len(ratios) > 0
