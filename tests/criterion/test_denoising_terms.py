"""Losses of the denoising queries: given objects, their own norm, and names."""

from dataclasses import replace

import pytest
import torch

from sparse_detr.criterion import SetCriterion
from sparse_detr.matcher import HungarianMatcher, fixed_matches
from sparse_detr.structures import DenoisingRows, Predictions
from stage_outputs import output_of, random_boxes, random_predictions, random_targets

COUNTS = (2, 1)
KINDS = ("loss_class", "loss_bbox", "loss_giou")


def output_with(rows, layers=2, boxes=None):
    """Output with denoising queries after each layer, at the boxes or at random ones."""
    output = output_of(*[random_predictions(2, 4) for _ in range(layers)])
    denoising = []
    for _ in range(layers):
        stage = random_predictions(2, rows.rows)
        stage = stage if boxes is None else Predictions(stage.logits, boxes)
        denoising.append(replace(stage, candidate_mask=rows.used(torch.device("cpu"))))
    return replace(
        output,
        queries=replace(output.queries, denoising=rows),
        decoder=replace(output.decoder, denoising=tuple(denoising)),
    )


def terms_of(output, targets, **kwargs):
    return SetCriterion(HungarianMatcher(**kwargs))(output, targets, range(2)).terms


def test_the_terms_have_the_released_names():
    rows = DenoisingRows(COUNTS, groups=2)
    terms = terms_of(output_with(rows), random_targets(COUNTS))
    suffixes = ["", "_0", "_dn", "_dn_0"]
    assert list(terms) == [kind + suffix for suffix in suffixes for kind in KINDS]


def test_boxes_on_their_objects_cost_nothing_whatever_the_negatives_are():
    rows, targets = DenoisingRows(COUNTS, groups=3), random_targets(COUNTS)
    boxes = random_boxes(2, rows.rows)
    matches = fixed_matches(rows, torch.device("cpu"))
    objects = torch.cat([t.boxes_cxcywh for t in targets])
    boxes[matches.image, matches.row] = objects[matches.batch_object]
    terms = terms_of(output_with(rows, boxes=boxes), targets)
    assert terms["loss_bbox_dn"].item() == pytest.approx(0)
    assert terms["loss_giou_dn"].item() == pytest.approx(0, abs=1e-12)


def test_more_groups_do_not_weigh_more():
    targets = random_targets(COUNTS)
    one, three = DenoisingRows(COUNTS, groups=1), DenoisingRows(COUNTS, groups=3)
    first = output_with(one, layers=1)
    (stage,) = first.decoder.denoising
    repeated = Predictions(
        stage.logits.repeat(1, 3, 1),
        stage.boxes_cxcywh.repeat(1, 3, 1),
        stage.candidate_mask.repeat(1, 3),
    )
    second = replace(
        first,
        queries=replace(first.queries, denoising=three),
        decoder=replace(first.decoder, denoising=(repeated,)),
    )
    one_terms, three_terms = terms_of(first, targets), terms_of(second, targets)
    for name in ("loss_class_dn", "loss_bbox_dn", "loss_giou_dn"):
        torch.testing.assert_close(one_terms[name], three_terms[name])


def test_without_objects_the_terms_are_there_and_zero():
    rows = DenoisingRows((0, 0), groups=100)
    terms = terms_of(output_with(rows), random_targets((0, 0)))
    assert all(terms[f"{kind}_dn"] == 0 for kind in KINDS)


def test_unused_slots_count_as_background_only_in_the_released_behaviour():
    rows, targets = DenoisingRows(COUNTS, groups=1), random_targets(COUNTS)
    output = output_with(rows)
    strict = SetCriterion(HungarianMatcher())(output, targets, range(2)).terms
    released = SetCriterion(HungarianMatcher(), supervise_all_rows=True)(output, targets, range(2))
    assert released.terms["loss_class_dn"] > strict["loss_class_dn"]
    assert released.terms["loss_bbox_dn"] == strict["loss_bbox_dn"]


def test_the_eps_of_the_matcher_is_that_of_the_loss():
    output, targets = output_of(random_predictions(2, 4)), random_targets(COUNTS)
    plain, blurred = terms_of(output, targets), terms_of(output, targets, iou_eps=1e-3)
    assert 0 < abs(plain["loss_giou"] - blurred["loss_giou"]) < 0.1
