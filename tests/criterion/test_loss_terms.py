"""The loss terms by hand and by their definitions."""

import math

import pytest
import torch

from sparse_detr.class_scores import focal_sum
from sparse_detr.criterion.loss_terms import box_l1_sum, giou_sum

NO_POSITIVE = (torch.zeros(0).long(),) * 3


def positives(*triples):
    return tuple(torch.tensor(column) for column in zip(*triples, strict=True))


def test_one_positive_and_one_negative_by_hand():
    logits = torch.tensor([[[math.log(3), -math.log(3)]]]).double()  # 3/4 and 1/4
    got = focal_sum(logits, positives((0, 0, 0)))
    positive = 0.25 * (1 / 4) ** 2 * -math.log(3 / 4)
    negative = 0.75 * (1 / 4) ** 2 * -math.log(3 / 4)
    assert got.item() == pytest.approx(positive + negative)


def test_alpha_and_gamma_by_hand():
    got = focal_sum(torch.zeros(1, 1, 2).double(), positives((0, 0, 1)), alpha=0.6, gamma=3.0)
    assert got.item() == pytest.approx((0.6 + 0.4) * 0.5**3 * math.log(2))


def test_it_equals_the_definition_over_a_one_hot_target():
    logits = (4 * torch.randn(2, 5, 3)).double().requires_grad_()
    triples = [(0, 1, 2), (0, 4, 0), (1, 0, 1)]
    target = torch.zeros(2, 5, 3).double()
    for triple in triples:
        target[triple] = 1
    probability = logits.sigmoid()
    hit = torch.where(target > 0, probability, 1 - probability)
    alpha = torch.where(target > 0, 0.25, 0.75)
    expected = (-alpha * (1 - hit) ** 2 * hit.log()).sum()
    got = focal_sum(logits, positives(*triples))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(
        torch.autograd.grad(got, logits), torch.autograd.grad(expected, logits)
    )


def test_rows_that_are_no_candidates_count_nothing_and_get_no_gradient():
    logits = torch.randn(1, 4, 3).double().requires_grad_()
    mask = torch.tensor([[True, False, True, False]])
    got = focal_sum(logits, positives((0, 2, 1)), mask)
    torch.testing.assert_close(got, focal_sum(logits[:, [0, 2]], positives((0, 1, 1))))
    got.backward()
    assert (logits.grad[0, [1, 3]] == 0).all() and (logits.grad[0, [0, 2]] != 0).all()


@pytest.mark.parametrize("value", [-1e4, -90.0, 90.0, 1e4])
def test_extreme_logits_stay_finite_in_float32(value):
    logits = torch.full((1, 2, 2), value, requires_grad=True)
    loss = focal_sum(logits, positives((0, 0, 1)))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_certain_and_right_costs_nothing():
    logits = torch.tensor([[[60.0, -60.0]]]).double()
    assert focal_sum(logits, positives((0, 0, 0))).item() == pytest.approx(0, abs=1e-20)


def test_box_distances_by_hand():
    a = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.2, 0.3, 0.4]])
    b = torch.tensor([[0.6, 0.4, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]])
    assert box_l1_sum(a, b).item() == pytest.approx(0.3)
    assert giou_sum(b, b).item() == pytest.approx(0.0, abs=1e-6)


def test_giou_loss_by_hand():
    # Side by side, half overlapping: IoU 1/3, the hull holds nothing else.
    a, b = torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([[0.6, 0.5, 0.2, 0.2]])
    assert giou_sum(a, b).item() == pytest.approx(2 / 3, abs=1e-6)


def test_no_matched_pair_gives_zero_with_a_gradient_path():
    boxes = torch.rand(3, 4, requires_grad=True)
    loss = box_l1_sum(boxes[:0], torch.zeros(0, 4)) + giou_sum(boxes[:0], torch.zeros(0, 4))
    loss.backward()
    assert loss.item() == 0 and (boxes.grad == 0).all()


@pytest.mark.parametrize("term", [box_l1_sum, giou_sum])
def test_sections_are_summed_apart(term):
    boxes, targets = (0.2 + 0.3 * torch.rand(7, 4).double() for _ in range(2))
    sections = [3, 0, 4]
    parts = zip(boxes.split(sections), targets.split(sections), strict=True)
    expected = torch.stack([term(*part) for part in parts])
    torch.testing.assert_close(term(boxes, targets, sections), expected)
    torch.testing.assert_close(term(boxes, targets), expected.sum())
