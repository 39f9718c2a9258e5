"""The Hungarian matcher against brute force, and which rows may match."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sparse_detr.class_scores import SoftmaxClasses
from sparse_detr.matcher import BatchObjects, HungarianMatcher
from sparse_detr.structures import Predictions, Targets
from stage_outputs import random_predictions, random_targets


def total(cost, rows, objects):
    return float(cost[rows, objects].sum())


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_the_match_is_the_cheapest_of_all_assignments(num_rows, num_objects, seed):
    torch.manual_seed(seed)
    predictions = random_predictions(1, num_rows)
    (target,) = random_targets([num_objects])
    matcher = HungarianMatcher()
    ((rows, objects),) = matcher(predictions, [target])
    cost = matcher.cost(
        predictions.logits[0], predictions.boxes_cxcywh[0], target.labels, target.boxes_cxcywh
    )
    if num_rows >= num_objects:
        best = min(
            total(cost, list(p), list(range(num_objects)))
            for p in permutations(range(num_rows), num_objects)
        )
    else:
        best = min(
            total(cost, list(range(num_rows)), list(p))
            for p in permutations(range(num_objects), num_rows)
        )
    assert total(cost, rows, objects) == pytest.approx(best, abs=1e-9)
    assert len(rows) == len(objects) == min(num_rows, num_objects)
    assert len(rows.unique()) == len(rows) and len(objects.unique()) == len(objects)
    assert (rows.diff() > 0).all()


def test_the_cost_by_hand():
    predictions = torch.zeros(1, 2).double()  # probability one half of both classes
    box = torch.tensor([[0.5, 0.5, 0.2, 0.2]], dtype=torch.float64)
    target = torch.tensor([[0.6, 0.5, 0.2, 0.2]], dtype=torch.float64)
    cost = HungarianMatcher(class_cost=2, bbox_cost=5, giou_cost=3).cost(
        predictions, box, torch.tensor([1]), target
    )
    log2 = 0.6931471805599453
    class_cost = 0.25 * 0.25 * log2 - 0.75 * 0.25 * log2
    # Half of each box overlaps: IoU is 0.02 / 0.06, and the hull holds nothing else.
    assert cost.item() == pytest.approx(2 * class_cost + 5 * 0.1 - 3 / 3, abs=1e-7)


def test_rows_that_are_no_candidates_never_match_even_if_they_fit_perfectly():
    predictions = random_predictions(2, 6)
    targets = [Targets(torch.tensor([0]), predictions.boxes_cxcywh[b, :1]) for b in range(2)]
    mask = torch.ones(2, 6).bool()
    mask[0, 0] = False
    masked = Predictions(predictions.logits, predictions.boxes_cxcywh, mask)
    open_rows = [int(rows[0]) for rows, _ in HungarianMatcher(0, 5, 2)(predictions, targets)]
    assert open_rows == [0, 0]
    first, second = HungarianMatcher(0, 5, 2)(masked, targets)
    assert int(first[0]) != 0 and int(second[0]) == 0


@given(st.lists(st.booleans(), min_size=5, max_size=5), st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_masked_rows_match_as_if_they_did_not_exist(mask, num_objects):
    predictions = random_predictions(1, 5)
    (target,) = random_targets([num_objects])
    keep = torch.tensor(mask)
    masked = Predictions(predictions.logits, predictions.boxes_cxcywh, keep[None])
    ((rows, objects),) = HungarianMatcher()(masked, [target])
    reduced = Predictions(predictions.logits[:, keep], predictions.boxes_cxcywh[:, keep])
    ((expected, expected_objects),) = HungarianMatcher()(reduced, [target])
    assert torch.equal(rows, keep.nonzero()[:, 0][expected])
    assert torch.equal(objects, expected_objects)


def test_the_labels_do_not_matter_to_a_class_agnostic_stage():
    predictions, (target,) = random_predictions(1, 6), random_targets([3])
    agnostic = Predictions(predictions.logits, predictions.boxes_cxcywh, class_agnostic=True)
    other = Targets((target.labels + 1) % 3, target.boxes_cxcywh)
    zero = Targets(torch.zeros_like(target.labels), target.boxes_cxcywh)
    by_class = HungarianMatcher(class_cost=100.0, bbox_cost=1.0, giou_cost=1.0)
    pairs = ((agnostic, target), (agnostic, other), (predictions, zero))
    first, second, third = (torch.stack(by_class(p, [t])[0]) for p, t in pairs)
    assert torch.equal(first, second) and torch.equal(first, third)
    by_label = torch.stack(by_class(predictions, [target])[0])
    assert not torch.equal(first, by_label)  # or the test would show nothing


def test_images_match_within_themselves_only():
    predictions, targets = random_predictions(3, 6), random_targets([2, 0, 4])
    together = HungarianMatcher()(predictions, targets)
    for index, target in enumerate(targets):
        one = Predictions(
            predictions.logits[index : index + 1], predictions.boxes_cxcywh[index : index + 1]
        )
        ((rows, objects),) = HungarianMatcher()(one, [target])
        assert torch.equal(together[index][0], rows)
        assert torch.equal(together[index][1], objects)


def test_a_batch_without_objects_matches_nothing():
    for rows, objects in HungarianMatcher()(random_predictions(2, 6), random_targets([0, 0])):
        assert rows.shape == objects.shape == (0,)
        assert rows.dtype == objects.dtype == torch.int64


def test_half_precision_logits_match_as_their_float32_values_do():
    predictions, targets = random_predictions(1, 8), random_targets([4])
    half = predictions.logits.to(torch.bfloat16)
    boxes = predictions.boxes_cxcywh.float()
    a = HungarianMatcher()(Predictions(half, boxes), targets)[0]
    b = HungarianMatcher()(Predictions(half.float(), boxes), targets)[0]
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_costs_that_are_all_zero_are_refused():
    with pytest.raises(ValueError, match="must not all be zero"):
        HungarianMatcher(0, 0, 0)


def stages_of_every_kind(batch):
    """Stages with different numbers of rows, with and without candidates and classes."""
    mask = torch.rand(batch, 9) < 0.6
    first, masked = random_predictions(batch, 9), random_predictions(batch, 9)
    return [
        random_predictions(batch, 4),
        Predictions(first.logits, first.boxes_cxcywh, class_agnostic=True),
        Predictions(masked.logits, masked.boxes_cxcywh, mask),
        random_predictions(batch, 1),
        Predictions(masked.logits, masked.boxes_cxcywh, ~mask, class_agnostic=True),
    ]


def matched_apart(predictions, targets):
    """One image after the other, with the costs of that image alone."""
    matcher, found = HungarianMatcher(), []
    for image, target in enumerate(targets):
        mask = predictions.candidate_mask
        rows = torch.arange(predictions.logits.shape[1])
        rows = rows if mask is None else rows[mask[image]]
        labels = target.labels * 0 if predictions.class_agnostic else target.labels
        logits, boxes = predictions.logits[image, rows], predictions.boxes_cxcywh[image, rows]
        cost = matcher.cost(logits, boxes, labels, target.boxes_cxcywh)
        chosen, objects = (torch.from_numpy(i) for i in linear_sum_assignment(cost))
        found.append((rows[chosen], objects))
    return found


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_all_stages_and_images_at_once_match_as_each_by_itself(counts, seed):
    torch.manual_seed(seed)
    stages, targets = stages_of_every_kind(len(counts)), random_targets(counts)
    together = HungarianMatcher().prepare(stages, BatchObjects.of(targets)).solve()
    starts = torch.tensor([0, *counts]).cumsum(0)
    for stage, matches in zip(stages, together, strict=True):
        expected = matched_apart(stage, targets)
        pairs = zip(matches.of_images(), expected, strict=True)
        assert all(torch.equal(a, b) for got, wanted in pairs for a, b in zip(got, wanted))
        image = [torch.full_like(rows, i) for i, (rows, _) in enumerate(expected)]
        assert torch.equal(matches.image, torch.cat(image))
        assert torch.equal(matches.row, torch.cat([rows for rows, _ in expected]))
        assert torch.equal(matches.batch_object, matches.object + starts[matches.image])


@pytest.mark.parametrize("pairs", [1, 50, 10**6])
def test_the_number_of_costs_computed_at_once_changes_nothing(pairs, monkeypatch):
    stages, objects = stages_of_every_kind(3), BatchObjects.of(random_targets([5, 0, 11]))
    expected = HungarianMatcher().prepare(stages, objects).numbers
    monkeypatch.setattr("sparse_detr.matcher._PAIRS_AT_ONCE_ON_CPU", pairs)
    assert torch.equal(HungarianMatcher().prepare(stages, objects).numbers, expected)


def test_classes_that_share_a_distribution_cost_their_negative_probability():
    matcher = HungarianMatcher(class_cost=2.0, class_scores=SoftmaxClasses())
    plain = HungarianMatcher(class_cost=0.0)
    predictions, (target,) = random_predictions(1, 6, num_classes=4), random_targets([3])
    pair = (predictions.logits[0], predictions.boxes_cxcywh[0], target.labels, target.boxes_cxcywh)
    chance = predictions.logits[0].softmax(-1)[:, target.labels]
    torch.testing.assert_close(matcher.cost(*pair), plain.cost(*pair) - 2 * chance)
    rows, objects = matcher(predictions, [target])[0]
    expected = linear_sum_assignment(matcher.cost(*pair).numpy())
    assert rows.tolist() == expected[0].tolist() and objects.tolist() == expected[1].tolist()
