"""Rows of classifiers between category ids and contiguous classes; what that does to detections."""

from __future__ import annotations

import torch

from builders import batch, small_detector
from sparse_detr.checkpoint.class_rows import ClassRows, coco_category_ids, has_class_count
from sparse_detr.postprocess import TopDetections

UNUSED = [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]


def test_the_ids_are_those_of_coco():
    ids = coco_category_ids()
    assert len(ids) == 80 and list(ids) == sorted(ids) and ids[0] == 1 and ids[-1] == 90
    assert sorted({*range(91)} - {*ids}) == UNUSED


def test_every_row_has_one_place_and_comes_back_to_its_own():
    rows, name = ClassRows(), "heads.stages.2.class_embed.weight"
    released = torch.randn(91, 4)
    kept, unused = rows.contiguous(name, released)
    assert torch.equal(kept, released[list(coco_category_ids())])
    assert torch.equal(unused, released[UNUSED])
    assert torch.equal(rows.released(name, kept, unused), released)
    assert torch.equal(rows.released(name, torch.cat([kept, unused]), None), released)


def test_only_classifiers_are_counted():
    weights = {
        "heads.stages.0.class_embed.bias": torch.zeros(91),
        "heads.stages.0.bbox_embed.layers.2.bias": torch.zeros(4),
    }
    assert has_class_count(weights, 91) and not has_class_count(weights, 80)


def with_rows(released, num_classes, **changes):
    """The detector of ``released`` (91 logits) with its rows sorted, 80 or 91 of them."""
    model = small_detector(num_classes=num_classes, **changes).double()
    state, rows = released.state_dict(), ClassRows()
    for name in [n for n in state if "class_embed" in n]:
        kept, unused = rows.contiguous(name, state[name])
        state[name] = kept if num_classes == 80 else torch.cat([kept, unused])
    model.load_state_dict(state)
    return model


def detections(model):
    with torch.no_grad():
        return [found["instances"] for found in model(batch([(64, 80), (80, 64)]))]


def raw_detector(unused_bias):
    """91 logits by category id; the rows of no class as likely as others, or never winning."""
    model = small_detector(num_classes=91, postprocess__max_detections=60).double()
    with torch.no_grad():
        for stage in model.heads.stages:
            stage.class_embed.bias[UNUSED] += unused_bias
    return model


def test_80_logits_detect_what_91_detect_where_no_unused_id_wins():
    raw = raw_detector(unused_bias=-30.0)
    ids = torch.tensor(coco_category_ids())
    sorted_ = with_rows(raw, 80, postprocess__max_detections=60)
    for one, other in zip(detections(raw), detections(sorted_), strict=True):
        assert len(one) == len(other) == 60
        assert torch.equal(ids[other.pred_classes], one.pred_classes)
        assert other.pred_classes.unique().numel() > 5
        torch.testing.assert_close(other.scores, one.scores, rtol=1e-12, atol=0)
        torch.testing.assert_close(other.pred_boxes.tensor, one.pred_boxes.tensor)


def test_91_sorted_logits_detect_the_same_even_where_unused_ids_win():
    raw = raw_detector(unused_bias=0.5)
    ids = torch.tensor(coco_category_ids())
    changes = {"postprocess__max_detections": 60, "postprocess__detected_classes": 80}
    dropped = 0
    for one, other in zip(detections(raw), detections(with_rows(raw, 91, **changes)), strict=True):
        real = torch.isin(one.pred_classes, ids)
        dropped += int((~real).sum())
        assert torch.equal(ids[other.pred_classes], one.pred_classes[real])
        torch.testing.assert_close(other.scores, one.scores[real], rtol=1e-12, atol=0)
        torch.testing.assert_close(other.pred_boxes.tensor, one.pred_boxes.tensor[real])
    assert dropped > 0


def test_logits_of_no_class_take_a_place_and_are_left_out():
    from sparse_detr.structures import Predictions

    logits = torch.tensor([[[0.0, 3.0, 2.0], [2.5, -2.0, 5.0]]])
    predictions = Predictions(logits, torch.full((1, 2, 4), 0.5))
    (found,) = TopDetections(3, detected_classes=2)(predictions, [(10, 10)])
    assert found.pred_classes.tolist() == [1, 0]
    assert found.scores.tolist() == torch.tensor([3.0, 2.5]).sigmoid().tolist()
