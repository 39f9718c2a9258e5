"""Stages, names, weights and normalisation of the set prediction loss."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from small_tokens import kept, sampling_at
from sparse_detr.criterion import (
    NonFinitePredictionError,
    SetCriterion,
    TokenScoringLoss,
    supervised_stages,
)
from sparse_detr.matcher import HungarianMatcher
from sparse_detr.structures import Predictions, Targets, TokenSelection
from stage_outputs import output_of, random_predictions, random_targets

KINDS = ("loss_class", "loss_bbox", "loss_giou")


def criterion(**kwargs):
    return SetCriterion(HungarianMatcher(), **kwargs)


def run(output, targets, **kwargs):
    return criterion(**kwargs)(output, targets, range(len(targets)))


def test_one_query_and_one_object_by_hand():
    box = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]], dtype=torch.float64)
    target = Targets(torch.tensor([1]), torch.tensor([[0.6, 0.5, 0.2, 0.2]], dtype=torch.float64))
    result = run(output_of(Predictions(torch.zeros(1, 1, 2).double(), box)), [target])
    terms = {k: v.item() for k, v in result.terms.items()}
    log2 = math.log(2)
    assert terms["loss_class"] == pytest.approx((0.25 + 0.75) * 0.25 * log2)
    assert terms["loss_bbox"] == pytest.approx(0.1)
    assert terms["loss_giou"] == pytest.approx(2 / 3)
    weighted = {k: v.item() for k, v in result.weighted().items()}
    assert weighted == pytest.approx(
        {"loss_class": 0.5 * log2, "loss_bbox": 0.5, "loss_giou": 4 / 3}
    )


def test_every_stage_has_its_terms_under_the_released_suffixes():
    stages = [random_predictions(2, 4) for _ in range(3)]
    output = output_of(
        *stages,
        first_stage=random_predictions(2, 6),
        auxiliary=[random_predictions(2, 5), random_predictions(2, 5)],
    )
    result = run(output, random_targets([2, 1]))
    suffixes = ["", "_0", "_1", "_enc", "_enc_0", "_enc_1"]
    assert list(result.terms) == [kind + suffix for suffix in suffixes for kind in KINDS]
    assert set(result.weights) == set(result.terms) == set(result.weighted())
    assert list(result.matches) == suffixes


def test_the_final_layer_has_no_suffix():
    stages = [random_predictions(1, 4) for _ in range(2)]
    named = {s.suffix: s.predictions for s in supervised_stages(output_of(*stages))}
    assert named[""] is stages[1] and named["_0"] is stages[0]


def test_every_stage_is_matched_anew():
    first, second = random_predictions(1, 6), random_predictions(1, 6)
    targets = random_targets([3])
    matches = run(output_of(first, second), targets).matches
    for suffix, predictions in (("", second), ("_0", first)):
        rows, objects = HungarianMatcher()(predictions, targets)[0]
        assert torch.equal(matches[suffix][0][0], rows)
        assert torch.equal(matches[suffix][0][1], objects)


def test_weights_are_those_of_the_config_in_every_stage():
    output = output_of(random_predictions(1, 4), random_predictions(1, 4))
    result = run(output, random_targets([1]), class_weight=3.0, bbox_weight=0.5, giou_weight=7.0)
    for suffix in ("", "_0"):
        assert [result.weights[k + suffix] for k in KINDS] == [3.0, 0.5, 7.0]


def test_all_terms_are_divided_by_the_objects_of_the_whole_batch():
    predictions, targets = random_predictions(2, 6), random_targets([3, 1])
    together = run(output_of(predictions), targets).terms
    for kind in KINDS:
        apart = 0.0
        for b in range(2):
            one = Predictions(predictions.logits[b : b + 1], predictions.boxes_cxcywh[b : b + 1])
            count = len(targets[b].labels)
            apart += run(output_of(one), [targets[b]]).terms[kind] * count
        torch.testing.assert_close(together[kind], apart / 4)


def test_a_batch_without_objects_is_divided_by_one_and_has_no_box_loss():
    predictions = random_predictions(2, 4)
    terms = run(output_of(predictions), random_targets([0, 0])).terms
    assert terms["loss_bbox"] == terms["loss_giou"] == 0
    probability = predictions.logits.sigmoid()
    expected = (0.75 * probability**2 * -(1 - probability).log()).sum()
    torch.testing.assert_close(terms["loss_class"], expected)


def test_a_batch_without_objects_still_connects_every_prediction_to_the_loss():
    predictions = random_predictions(2, 4)
    logits = predictions.logits.requires_grad_()
    boxes = predictions.boxes_cxcywh.requires_grad_()
    result = run(output_of(Predictions(logits, boxes)), random_targets([0, 0]))
    sum(result.weighted().values()).backward()
    assert boxes.grad is not None and (boxes.grad == 0).all()
    assert (logits.grad > 0).all()


def test_more_objects_than_queries_match_every_query_and_all_objects_are_counted():
    predictions, (target,) = random_predictions(1, 3), random_targets([8])
    result = run(output_of(predictions), [target])
    rows, objects = result.matches[""][0]
    assert rows.tolist() == [0, 1, 2]
    distances = (predictions.boxes_cxcywh[0, rows] - target.boxes_cxcywh[objects]).abs()
    torch.testing.assert_close(result.terms["loss_bbox"], distances.sum() / 8)
    assert all(v.isfinite() for v in result.terms.values())


def test_rows_that_are_no_candidates_do_not_count():
    predictions = random_predictions(1, 6)
    mask = torch.tensor([[True, False, True, True, False, True]])
    masked = Predictions(predictions.logits, predictions.boxes_cxcywh, mask)
    reduced = Predictions(predictions.logits[:, mask[0]], predictions.boxes_cxcywh[:, mask[0]])
    targets = random_targets([2])
    a, b = run(output_of(masked), targets).terms, run(output_of(reduced), targets).terms
    for kind in KINDS:
        torch.testing.assert_close(a[kind], b[kind])


def test_supervise_all_rows_takes_the_loss_of_every_row():
    predictions = random_predictions(1, 6)
    mask = torch.tensor([[True, False, True, True, False, True]])
    masked = Predictions(predictions.logits, predictions.boxes_cxcywh, mask)
    targets = random_targets([2])
    released = run(output_of(masked), targets, supervise_all_rows=True).terms
    for kind, value in run(output_of(predictions), targets).terms.items():
        assert torch.equal(value, released[kind])


def test_supervise_all_rows_changes_nothing_where_every_row_is_a_candidate():
    output, targets = output_of(random_predictions(1, 6)), random_targets([2])
    default = run(output, targets).terms
    for kind, value in run(output, targets, supervise_all_rows=True).terms.items():
        assert torch.equal(value, default[kind])


def test_a_class_agnostic_stage_ignores_the_labels_in_matching_and_loss():
    (target,) = random_targets([3])
    first = random_predictions(1, 8)
    agnostic = Predictions(first.logits, first.boxes_cxcywh, class_agnostic=True)
    final = random_predictions(1, 4)
    results = []
    for labels in (target.labels, (target.labels + 1) % 3):
        output = output_of(final, first_stage=agnostic)
        results.append(run(output, [Targets(labels, target.boxes_cxcywh)]).terms)
    assert results[0]["loss_class_enc"] == results[1]["loss_class_enc"]
    assert results[0]["loss_class"] != results[1]["loss_class"]
    zero = Targets(torch.zeros_like(target.labels), target.boxes_cxcywh)
    plain = run(output_of(final, first_stage=first), [zero]).terms
    torch.testing.assert_close(results[0]["loss_class_enc"], plain["loss_class_enc"])


def test_the_order_of_objects_does_not_matter():
    output, (target,) = output_of(random_predictions(1, 6)), random_targets([4])
    order = torch.tensor([2, 0, 3, 1])
    shuffled = Targets(target.labels[order], target.boxes_cxcywh[order])
    a, b = run(output, [target]).terms, run(output, [shuffled]).terms
    for kind in KINDS:
        torch.testing.assert_close(a[kind], b[kind])


@pytest.mark.parametrize(
    ("where", "stage"),
    [
        ("final", "decoder layer 1"),
        ("early", "decoder layer 0"),
        ("first", "first stage"),
        ("auxiliary", "auxiliary head of encoder layer 0"),
    ],
)
@pytest.mark.parametrize("field", ["logits", "boxes_cxcywh"])
def test_predictions_that_are_not_finite_name_their_stage_and_images(where, stage, field):
    predictions = {
        name: random_predictions(2, 4) for name in ("final", "early", "first", "auxiliary")
    }
    getattr(predictions[where], field)[1, 0, 0] = float("nan")
    output = output_of(
        predictions["early"],
        predictions["final"],
        first_stage=predictions["first"],
        auxiliary=[predictions["auxiliary"]],
    )
    with pytest.raises(NonFinitePredictionError) as error:
        criterion()(output, random_targets([1, 1]), ["left.png", "right.png"])
    assert error.value.stage == stage
    assert error.value.image_ids == ("right.png",)


def test_class_error_is_the_share_of_matched_queries_with_a_wrong_best_class():
    boxes = torch.tensor([[[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]]).double()
    logits = torch.tensor([[[3.0, 0.0], [3.0, 0.0]]]).double()
    target = Targets(torch.tensor([0, 1]), boxes[0])
    logs = run(output_of(Predictions(logits, boxes)), [target]).logs
    assert logs["class_error"].item() == pytest.approx(50.0)
    assert run(output_of(Predictions(logits, boxes)), random_targets([0])).logs["class_error"] == 0


def test_half_precision_predictions_are_weighed_in_float32():
    predictions, targets = random_predictions(1, 4), random_targets([2])
    half = predictions.logits.bfloat16()
    boxes = predictions.boxes_cxcywh.float()
    got = run(output_of(Predictions(half, boxes)), targets).terms
    for kind, value in run(output_of(Predictions(half.float(), boxes)), targets).terms.items():
        assert torch.equal(got[kind], value)


class WaitingOperators(TorchDispatchMode):
    """Records the operators for which the host waits, whatever they read."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or name.startswith(self.names):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_the_host_waits_once_for_the_check_and_once_for_the_costs(monkeypatch):
    """However many stages and images there are."""
    mask = torch.rand(3, 8) < 0.7
    first = random_predictions(3, 8)
    output = output_of(
        *(random_predictions(3, 4) for _ in range(4)),
        first_stage=Predictions(first.logits, first.boxes_cxcywh, mask),
        auxiliary=[random_predictions(3, 5), random_predictions(3, 5)],
        selection=TokenSelection(
            (kept([[0, 1], [2, 3], [4, 5]], (2, 1, 2)),), torch.randn(3, 12).double()
        ),
        sampling=[sampling_at(torch.rand(3, 9, 2).double(), torch.rand(3, 9).double())],
    )
    targets = random_targets([2, 0, 5])
    waits = []
    for name in ("cpu", "tolist", "item", "numpy", "__bool__"):
        original = getattr(torch.Tensor, name)

        def waiting(tensor, name=name, original=original):
            waits.append(name)
            return original(tensor)

        monkeypatch.setattr(torch.Tensor, name, waiting)
    with WaitingOperators() as operators:
        result = run(output, targets, token_scoring=TokenScoringLoss())
    assert sorted(waits) == ["cpu", "numpy", "tolist"]  # the costs are on the host as .numpy()
    assert operators.found == []
    assert len(result.matches) == 7
