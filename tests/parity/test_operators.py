"""Every golden vector of a single operation, in float64."""

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
def comparisons(golden_dir):
    return {c.case: c for c in run_operator_cases(golden_dir / "sparse_detr")}


@pytest.mark.parametrize("group", GROUPS)
def test_an_operation_equals_its_golden_vectors(comparisons, group):
    comparison = comparisons[f"ops/{group}"]
    assert comparison.passed, comparison.line()


def test_every_group_of_the_file_is_checked(comparisons):
    assert set(comparisons) == {f"ops/{group}" for group in GROUPS}


def test_the_tables_are_compared_whole(comparisons):
    assert comparisons["ops/masks"].count == 200
    assert comparisons["ops/token_count"].count == 15
