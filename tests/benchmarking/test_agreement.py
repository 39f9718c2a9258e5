from __future__ import annotations

import torch
from torch import Tensor

from sparse_detr.benchmarking.agreement import agreement


def predictions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 6, 5, generator=generator), torch.rand(1, 6, 4, generator=generator)


def test_equal_predictions_agree() -> None:
    compared = agreement(predictions(), predictions())

    assert compared.holds
    assert (compared.logits, compared.boxes, compared.matched) == (0, 0, 1)


def test_a_difference_beyond_the_tolerance_does_not_hold() -> None:
    logits, boxes = predictions()
    compared = agreement((logits, boxes), (logits, boxes + 1e-3))

    assert not compared.holds
    assert compared.matched == 0


def test_queries_that_changed_places_are_told_from_others() -> None:
    logits, boxes = predictions()
    compared = agreement((logits, boxes), (logits.flip(1), boxes.flip(1)))

    assert not compared.holds
    assert compared.matched == 1


def test_large_logits_may_differ_by_more() -> None:
    logits, boxes = predictions()
    logits = logits * 100

    assert agreement((logits, boxes), (logits + 1e-4, boxes)).holds
