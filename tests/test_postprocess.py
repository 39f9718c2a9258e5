"""From logits and boxes to Instances in the original image."""

import pytest
import torch

from sparse_detr.postprocess import TopDetections
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


def test_no_detections_at_all_are_refused():
    with pytest.raises(ValueError, match="max_detections must be at least 1"):
        TopDetections(0)
