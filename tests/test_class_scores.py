"""Costs and losses of classes: one logit each, or a distribution with "no object"."""

import pytest
import torch
import torch.nn.functional as F

from sparse_detr.class_scores import (
    ClassTargets,
    SigmoidClasses,
    SoftmaxClasses,
    class_probabilities,
    focal_sum,
)

CLASSES, B, Q = 3, 2, 5
POSITIVE = (torch.tensor([0, 0, 1]), torch.tensor([1, 4, 2]), torch.tensor([2, 0, 1]))
NUM_BOXES = torch.tensor(3.0)


def logits():
    return torch.randn(B, Q, CLASSES + 1).double()


def cross_entropy(values, weight=0.1, positive=POSITIVE):
    """torch's weighted mean over all rows."""
    image, row, label = positive
    target = torch.full((B, Q), CLASSES)
    target[image, row] = label
    weights = torch.ones(CLASSES + 1).double()
    weights[-1] = weight
    return F.cross_entropy(values.flatten(0, 1), target.flatten(), weights)


@pytest.mark.parametrize("weight", [0.1, 1.0, 2.5])
def test_the_softmax_loss_is_torchs_weighted_cross_entropy(weight):
    values = logits()
    got = SoftmaxClasses(weight).losses([ClassTargets(values, POSITIVE)], NUM_BOXES)
    torch.testing.assert_close(got, cross_entropy(values, weight)[None], rtol=1e-13, atol=0)


def test_the_softmax_loss_does_not_depend_on_the_number_of_objects():
    stage = ClassTargets(logits(), POSITIVE)
    first, second = (SoftmaxClasses().losses([stage], torch.tensor(n)) for n in (1.0, 7.0))
    assert torch.equal(first, second)


def test_every_stage_has_its_own_softmax_loss():
    stages = [ClassTargets(logits(), POSITIVE) for _ in range(3)]
    together = SoftmaxClasses().losses(stages, NUM_BOXES)
    apart = [SoftmaxClasses().losses([stage], NUM_BOXES)[0] for stage in stages]
    assert torch.equal(together, torch.stack(apart))


def test_without_objects_the_softmax_loss_is_that_of_no_object_alone():
    values, none = logits(), torch.zeros(0, dtype=torch.int64)
    got = SoftmaxClasses().losses([ClassTargets(values, (none,) * 3)], NUM_BOXES)
    expected = -values.log_softmax(-1)[..., -1].mean()
    torch.testing.assert_close(got[0], expected)


def test_rows_that_are_no_candidates_count_nothing():
    values = logits()
    mask = torch.ones(B, Q, dtype=torch.bool)
    mask[:, 3] = False
    got = SoftmaxClasses().losses([ClassTargets(values, POSITIVE, mask)], NUM_BOXES)
    positive = (POSITIVE[0], torch.tensor([1, 3, 2]), POSITIVE[2])
    without = ClassTargets(values[:, [0, 1, 2, 4]], positive)
    torch.testing.assert_close(got, SoftmaxClasses().losses([without], NUM_BOXES))


def test_a_stage_without_any_candidate_has_loss_and_gradient_zero():
    values, none = logits().requires_grad_(), torch.zeros(0, dtype=torch.int64)
    mask = torch.zeros(B, Q, dtype=torch.bool)
    loss = SoftmaxClasses().losses([ClassTargets(values, (none,) * 3, mask)], NUM_BOXES)
    loss.sum().backward()
    assert loss.item() == 0 and (values.grad == 0).all()


def test_the_softmax_cost_is_the_negative_probability_of_the_class():
    values = logits()
    scores = SoftmaxClasses()
    got = scores.pair_cost(scores.comparable(values))
    torch.testing.assert_close(got, -values.softmax(-1)[..., :CLASSES])
    assert class_probabilities(values.bfloat16()).dtype == torch.float32


def test_the_sigmoid_loss_is_the_focal_sum_divided_by_the_objects():
    values = logits()
    got = SigmoidClasses(0.3, 1.5).losses([ClassTargets(values, POSITIVE)], NUM_BOXES)
    expected = focal_sum(values, POSITIVE, None, 0.3, 1.5) / 3
    torch.testing.assert_close(got, expected[None])


@pytest.mark.parametrize(("own_only", "divisor"), [(True, 1.0), (False, 2.0)])
def test_weights_are_those_of_all_processes_unless_as_released(monkeypatch, own_only, divisor):
    # The other process has three times the weight: the mean is twice that of this one.
    monkeypatch.setattr(
        "sparse_detr.class_scores.mean_over_processes", lambda values: (values + 3 * values) / 2
    )
    values = logits()
    scores = SoftmaxClasses(own_process_only=own_only)
    got = scores.losses([ClassTargets(values, POSITIVE)], NUM_BOXES)
    torch.testing.assert_close(got[0], cross_entropy(values) / divisor)


def test_a_weight_of_zero_is_refused():
    with pytest.raises(ValueError, match="no_object_weight must be above 0, got 0"):
        SoftmaxClasses(0)
