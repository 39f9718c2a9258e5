"""Box formats, generalised IoU and the inverse sigmoid."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_detr.layers.boxes import (
    cxcywh_to_xyxy,
    generalized_iou,
    inverse_sigmoid,
    xyxy_to_cxcywh,
)

corner = st.floats(0, 0.9)
extent = st.floats(0, 0.5)
boxes = st.tuples(corner, corner, extent, extent).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def iou(a, b):
    return generalized_iou(torch.tensor([a]).double(), torch.tensor([b]).double()).item()


@given(boxes)
@settings(max_examples=100, deadline=None)
def test_the_formats_are_inverse_to_each_other(box):
    corners = torch.tensor([box], dtype=torch.float64)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(corners)), corners)


def test_a_box_by_hand():
    assert cxcywh_to_xyxy(torch.tensor([5.0, 6.0, 4.0, 2.0])).tolist() == [3, 5, 7, 7]


def test_equal_boxes_have_iou_one_and_distant_ones_less_than_zero():
    assert iou((0, 0, 2, 1), (0, 0, 2, 1)) == 1
    # Two unit squares two apart: nothing shared, a third of the hull is empty.
    assert iou((0, 0, 1, 1), (2, 0, 3, 1)) == pytest.approx(-1 / 3)


def test_overlapping_boxes_by_hand():
    # Shared 1, union 7, hull 9.
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7 - 2 / 9)


@given(boxes, boxes)
@settings(max_examples=200, deadline=None)
def test_generalised_iou_is_symmetric_finite_and_in_its_range(a, b):
    value = iou(a, b)
    assert -1 - 1e-9 <= value <= 1 + 1e-9
    assert value == pytest.approx(iou(b, a))


@pytest.mark.parametrize("other", [(0.5, 0.5, 0.5, 0.5), (0.2, 0.2, 0.2, 0.2), (0, 0, 1, 1)])
def test_boxes_without_area_give_finite_values_and_gradients(other):
    a = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    value = generalized_iou(a, torch.tensor([other]))
    value.sum().backward()
    assert value.isfinite().all() and a.grad.isfinite().all()


def test_boxes_broadcast_to_all_pairs():
    a, b = torch.rand(3, 1, 4), torch.rand(1, 5, 4)
    assert generalized_iou(a, b).shape == (3, 5)


def test_the_inverse_sigmoid_inverts_inside_its_limits():
    values = torch.linspace(0.001, 0.999, 50).double()
    torch.testing.assert_close(inverse_sigmoid(values).sigmoid(), values)


@pytest.mark.parametrize(("value", "expected"), [(0.0, 1e-5), (-3.0, 1e-5), (1.0, 1e5), (2.0, 1e5)])
def test_the_inverse_sigmoid_is_limited_at_and_beyond_the_ends(value, expected):
    got = inverse_sigmoid(torch.tensor(value, dtype=torch.float64))
    assert got.item() == pytest.approx(math.log(expected))


def test_an_eps_is_added_to_union_and_hull():
    a, b = torch.tensor([0.0, 0.0, 0.4, 0.5]), torch.tensor([0.2, 0.0, 0.6, 0.5])
    got = generalized_iou(a, b, eps=0.1)
    assert float(got) == pytest.approx(0.1 / (0.3 + 0.1) - 0.0 / (0.3 + 0.1))
