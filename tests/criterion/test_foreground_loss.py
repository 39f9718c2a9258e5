"""Foreground labels and the loss of the scores that learn them."""

import dataclasses

import numpy as np
import pytest
import torch

from small_tokens import tokens_of
from sparse_detr.criterion import ForegroundLoss, foreground_labels
from sparse_detr.criterion.foreground_loss import level_ranges
from sparse_detr.feature_projection import PositionEmbedding
from sparse_detr.layers.boxes import xyxy_to_cxcywh
from sparse_detr.structures import FeatureMaps, Targets, TokenSelection
from stage_outputs import output_of, random_predictions

SIZE = (64, 96)
SHAPES = [(8, 12), (4, 6)]
STRIDES = (8, 16)


def tokens(valid=None, sizes=(SIZE,)):
    made = tokens_of(SHAPES, valid, batch=len(sizes))
    return dataclasses.replace(made, image_sizes=tuple(sizes), strides=STRIDES)


def targets(boxes_xyxy, size=SIZE):
    boxes = torch.tensor(boxes_xyxy).double().view(-1, 4)
    scale = torch.tensor([size[1], size[0], size[1], size[0]])
    return Targets(torch.zeros(len(boxes)).long(), xyxy_to_cxcywh(boxes / scale))


def cells(labels, level):
    start = sum(h * w for h, w in SHAPES[:level])
    height, width = SHAPES[level]
    there = labels[start : start + height * width].view(height, width)
    return [tuple(cell) for cell in there.nonzero().tolist()]


def plain(box, stride, shape, low, high):
    """The rule for one box in plain numbers."""
    found = []
    for row in range(shape[0]):
        for column in range(shape[1]):
            x, y = column * stride + stride // 2, row * stride + stride // 2
            sides = (x - box[0], y - box[1], box[2] - x, box[3] - y)
            if min(sides) > 0 and low < max(sides) <= high:
                found.append((row, column))
    return found


@pytest.mark.parametrize("box", [(5, 9, 30, 50), (3.5, 2.5, 90, 60), (40, 20, 44, 24)])
def test_a_token_is_foreground_whose_farthest_side_is_its_levels_business(box):
    ranges = ((-1, 24), (24, float("inf")))
    (labels,) = foreground_labels(tokens(), [targets([box])], ranges)
    for level, (low, high) in enumerate(ranges):
        expected = plain(box, STRIDES[level], SHAPES[level], low, high)
        assert cells(labels, level) == expected


def test_a_centre_on_a_side_is_outside_and_a_distance_at_an_end_belongs_to_the_finer_level():
    # Centres of the fine level stand at 4, 12, 20, ... in both directions.
    (labels,) = foreground_labels(tokens(), [targets([(4, 4, 28, 28)])], ((-1, 16), (16, 1e9)))
    assert cells(labels, 0) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    # Those of the coarse one at 8 and 24: 20 is the farthest side of all four.
    assert cells(labels, 1) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_any_of_several_boxes_suffices_and_none_gives_none():
    boxes = [(0, 0, 20, 20), (60, 30, 90, 60)]
    ranges = level_ranges((1000,))
    both = foreground_labels(tokens(), [targets(boxes)], ranges)
    apart = [foreground_labels(tokens(), [targets([box])], ranges) for box in boxes]
    assert torch.equal(both, apart[0] | apart[1])
    assert not foreground_labels(tokens(), [targets([])], ranges).any()


def test_padding_is_never_foreground():
    small = (32, 48)
    made = tokens([[(8, 12), (4, 6)], [(4, 6), (2, 3)]], (SIZE, small))
    labels = foreground_labels(
        made, [targets([]), targets([(0, 0, 48, 32)], small)], ((-1, 1e9),) * 2
    )
    assert not (labels & made.padding_mask).any()
    assert labels[1].sum() == 24 + 6


def test_the_released_ranges_meet_and_those_of_the_paper_overlap_by_half():
    infinity = float("inf")
    assert level_ranges((64, 128, 256)) == ((-1, 64), (64, 128), (128, 256), (256, infinity))
    overlapping = level_ranges((64, 128, 256), overlapping=True)
    assert overlapping == ((-1, 64), (32, 128), (80, 256), (168, infinity))


@pytest.mark.parametrize("ends", [(64, 64), (128, 64), (0, 64)])
def test_ends_that_do_not_ascend_are_refused(ends):
    with pytest.raises(ValueError, match="level_ends must ascend"):
        level_ranges(ends)


def test_as_many_ranges_as_levels_are_wanted():
    with pytest.raises(ValueError, match="level_ends must have 1 entries"):
        foreground_labels(tokens(), [targets([])], level_ranges((64, 128)))
    with pytest.raises(ValueError, match="must hold image_sizes and strides"):
        foreground_labels(tokens_of(SHAPES), [targets([])], level_ranges((64,)))


def focal(logit, label):
    chance = torch.tensor(logit).double().sigmoid()
    right, weight = (chance, 0.25) if label else (1 - chance, 0.75)
    return -weight * (1 - right) ** 2 * right.log()


def test_each_image_counts_by_its_foreground_and_images_alike():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.3, -1.0, 4.0]]).double()
    labels = torch.tensor([[True, True, False], [False, False, False]])
    none = torch.zeros_like(labels)
    first = (focal(1.0, True) + focal(-2.0, True) + focal(0.5, False)) / 2
    second = focal(0.3, False) + focal(-1.0, False) + focal(4.0, False)
    torch.testing.assert_close(ForegroundLoss().loss(logits, labels, none), (first + second) / 2)


def test_padding_costs_nothing_unless_it_is_included():
    logits = torch.tensor([[1.0, -2.0, 30.0]]).double().requires_grad_()
    labels = torch.tensor([[True, False, False]])
    padding = torch.tensor([[False, False, True]])
    loss = ForegroundLoss().loss(logits, labels, padding)
    torch.testing.assert_close(loss, focal(1.0, True) + focal(-2.0, False))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 2] == 0
    included = ForegroundLoss(include_padding=True).loss(logits, labels, padding)
    assert included > loss + 10


@pytest.mark.parametrize("value", [-200.0, 200.0])
def test_confident_scores_stay_finite_in_half_precision(value):
    logits = torch.full((1, 2), value).half().requires_grad_()
    labels = torch.tensor([[True, False]])
    loss = ForegroundLoss().loss(logits, labels, torch.zeros_like(labels))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and logits.grad.isfinite().all()


def test_it_is_taken_of_the_scores_before_padding_was_masked():
    made = tokens()
    raw = torch.randn(1, 120).double()
    chosen = TokenSelection((), token_scores=torch.full_like(raw, -1e9), raw_scores=raw)
    output = output_of(random_predictions(1, 3), selection=chosen)
    output = dataclasses.replace(output, tokens=made)
    loss = ForegroundLoss(level_ends=(64,))
    value, logs = loss(output, [targets([(5, 9, 30, 50)])])
    labels = foreground_labels(made, [targets([(5, 9, 30, 50)])], loss.ranges)
    torch.testing.assert_close(value, loss.loss(raw, labels, made.padding_mask))
    assert logs["foreground_share"].item() == pytest.approx(labels.double().mean().item())
    with pytest.raises(ValueError, match="must hold raw_scores"):
        loss(dataclasses.replace(output, selection=None), [])


def test_labels_and_loss_are_those_of_the_released_code(golden_file):
    with np.load(golden_file("labels.npz")) as file:
        golden = dict(file)
    sizes = [(int(h), int(w)) for h, w in golden["image_sizes"]]
    maps = [torch.zeros(3, 4, int(h), int(w)).double() for h, w in golden["level_shapes"]]
    padded = tuple(int(length) for length in golden["padded_hw"])
    made = PositionEmbedding(4, 4).double()(
        FeatureMaps.of_padded_images(maps, sizes, padded, (8, 16, 32, 64))
    )
    objects = [
        targets(golden[f"gt_boxes_xyxy.{image}"].tolist(), size) for image, size in enumerate(sizes)
    ]
    loss = ForegroundLoss(include_padding=True)
    labels = foreground_labels(made, objects, loss.ranges)
    assert np.array_equal(labels.numpy(), golden["labels"].astype(bool))
    logits = torch.from_numpy(golden["loss_logits"]).requires_grad_()
    last = slice(-logits.shape[1], None)
    value = loss.loss(logits, labels[:, last], made.padding_mask[:, last])
    value.backward()
    torch.testing.assert_close(value.item(), float(golden["focal_mean"]), rtol=0, atol=1e-12)
    expected = torch.from_numpy(golden["focal_grad"])
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-12)
