"""From logits and boxes to Instances in the original image."""

import pytest
import torch

from sparse_detr.postprocess import BestClassDetections, TopDetections
from sparse_detr.structures import Predictions
from stage_outputs import random_predictions


def test_the_best_pairs_of_query_and_class_are_taken_over_all_of_them():
    logits = torch.tensor([[[0.0, 3.0, -1.0], [2.0, -2.0, 1.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.25, 0.5, 0.5]]])
    (got,) = TopDetections(4)(Predictions(logits, boxes), [(100, 200)])
    assert got.pred_classes.tolist() == [1, 0, 2, 0]
    torch.testing.assert_close(got.scores, torch.tensor([3.0, 2.0, 1.0, 0.0]).sigmoid())
    first, second = [80.0, 30.0, 120.0, 70.0], [0.0, 0.0, 100.0, 50.0]
    torch.testing.assert_close(got.pred_boxes.tensor, torch.tensor([first, second, second, first]))


def test_fewer_candidates_than_the_maximum_are_all_given():
    (got,) = TopDetections(100)(random_predictions(1, 4), [(10, 10)])
    assert len(got) == 12
    assert (got.scores.diff() <= 0).all()


def test_every_image_is_scaled_to_its_own_original_size():
    predictions = random_predictions(2, 5)
    same = Predictions(
        predictions.logits[:1].expand(2, -1, -1), predictions.boxes_cxcywh[:1].expand(2, -1, -1)
    )
    first, second = TopDetections(10)(same, [(10, 20), (30, 80)])
    scale = torch.tensor([4.0, 3.0, 4.0, 3.0])
    torch.testing.assert_close(second.pred_boxes.tensor, first.pred_boxes.tensor * scale)
    assert first.image_size == (10, 20) and second.image_size == (30, 80)


def overhanging():
    return Predictions(torch.zeros(1, 1, 1), torch.tensor([[[0.1, 0.9, 0.4, 0.4]]]))


def test_boxes_are_clipped_to_the_image():
    (got,) = TopDetections()(overhanging(), [(100, 100)])
    torch.testing.assert_close(got.pred_boxes.tensor, torch.tensor([[0.0, 70.0, 30.0, 100.0]]))


def test_keep_boxes_outside_leaves_them_as_predicted_and_changes_nothing_else():
    (clipped,) = TopDetections()(overhanging(), [(100, 100)])
    (got,) = TopDetections(keep_boxes_outside=True)(overhanging(), [(100, 100)])
    torch.testing.assert_close(got.pred_boxes.tensor, torch.tensor([[-10.0, 70.0, 30.0, 110.0]]))
    assert torch.equal(got.scores, clipped.scores)


def test_half_precision_logits_give_float32_detections():
    predictions = random_predictions(1, 4)
    half = Predictions(predictions.logits.bfloat16(), predictions.boxes_cxcywh.float())
    (got,) = TopDetections()(half, [(10, 10)])
    assert got.scores.dtype == got.pred_boxes.tensor.dtype == torch.float32


def test_rows_that_are_no_candidates_give_no_detections():
    predictions = random_predictions(2, 4)
    mask = torch.tensor([[True, False, True, True], [False, False, True, False]])
    masked = Predictions(predictions.logits, predictions.boxes_cxcywh, mask)
    for found in (
        TopDetections(100)(masked, [(10, 10)] * 2),
        TopDetections(5)(masked, [(9, 9)] * 2),
    ):
        assert [len(f) for f in found] == [min(9, len(found[0])), 3]
    for image, rows in enumerate(mask):
        alone = Predictions(
            predictions.logits[image : image + 1, rows],
            predictions.boxes_cxcywh[image : image + 1, rows],
        )
        (expected,) = TopDetections(100)(alone, [(10, 10)])
        got = TopDetections(100)(masked, [(10, 10)] * 2)[image]
        torch.testing.assert_close(got.scores, expected.scores, rtol=0, atol=1e-14)
        assert torch.equal(got.pred_classes, expected.pred_classes)
        torch.testing.assert_close(got.pred_boxes.tensor, expected.pred_boxes.tensor)


@pytest.mark.parametrize("field", ["logits", "boxes_cxcywh"])
@pytest.mark.parametrize("keep_boxes_outside", [False, True])
def test_numbers_that_are_not_finite_are_refused_with_the_images_that_have_them(
    field, keep_boxes_outside
):
    predictions = random_predictions(3, 2)
    getattr(predictions, field)[1, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"infinity for images \[1\] of the batch"):
        TopDetections(6, keep_boxes_outside)(predictions, [(10, 10)] * 3)


def test_each_detection_names_its_query():
    logits = torch.tensor([[[0.0, 3.0], [2.0, 1.0], [-1.0, -2.0]]])
    (found,) = TopDetections(4).select(Predictions(logits, torch.rand(1, 3, 4)), [(10, 10)])
    assert found.queries.tolist() == [0, 1, 1, 0]
    assert found.classes.tolist() == [1, 0, 1, 0]


def test_no_detections_at_all_are_refused():
    with pytest.raises(ValueError, match="max_detections must be at least 1"):
        TopDetections(0)


def test_every_query_gives_its_best_class_and_no_object_is_none():
    logits = torch.tensor([[[1.0, 2.0, 9.0], [3.0, 0.0, -1.0], [0.0, 0.0, 0.0]]])
    boxes = torch.rand(1, 3, 4)
    (got,) = BestClassDetections().select(Predictions(logits, boxes), [(10, 10)])
    assert got.queries.tolist() == [1, 2, 0]
    assert got.classes.tolist() == [0, 0, 1]
    expected = logits.softmax(-1)[0, [1, 2, 0], [0, 0, 1]]
    torch.testing.assert_close(got.scores, expected)


def test_queries_that_are_no_candidates_are_not_detected():
    logits, boxes = torch.randn(1, 4, 3), torch.rand(1, 4, 4)
    mask = torch.tensor([[True, False, True, True]])
    (got,) = BestClassDetections().select(Predictions(logits, boxes, mask), [(10, 10)])
    assert sorted(got.queries.tolist()) == [0, 2, 3]


def test_best_classes_that_stand_for_none_are_left_out():
    logits = torch.tensor([[[0.0, 5.0, 0.0], [5.0, 0.0, 0.0]]])
    postprocess = BestClassDetections(detected_classes=1)
    (got,) = postprocess(Predictions(logits, torch.rand(1, 2, 4)), [(10, 10)])
    assert got.pred_classes.tolist() == [0] and len(got) == 1


def test_only_the_best_queries_are_kept():
    predictions = Predictions(torch.randn(1, 8, 4), torch.rand(1, 8, 4))
    (every,) = BestClassDetections()(predictions, [(10, 10)])
    (few,) = BestClassDetections(3)(predictions, [(10, 10)])
    assert len(every) == 8 and torch.equal(few.scores, every.scores[:3])
