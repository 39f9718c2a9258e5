"""Images taken from a data set stand for all of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sparse_detr.evaluation.checkpoint_evaluation import CheckpointEvaluation


def evaluation_over(number: int) -> CheckpointEvaluation:
    evaluation = object.__new__(CheckpointEvaluation)
    test = SimpleNamespace(mapper=lambda record: {"image": record})
    evaluation.config = SimpleNamespace(dataloader=SimpleNamespace(test=test))
    evaluation._test_data = list(range(number))
    return evaluation


@pytest.mark.parametrize(
    ("number", "count", "expected"),
    [
        (19, 10, [0, 1, 3, 5, 7, 9, 11, 13, 15, 17]),
        (100, 4, [0, 25, 50, 75]),
        (3, 10, [0, 1, 2]),
        (3, 0, []),
    ],
)
def test_samples_are_spread_over_all_images(number: int, count: int, expected: list[int]) -> None:
    found = evaluation_over(number).samples(count)
    assert [sample["image"] for sample in found] == expected
