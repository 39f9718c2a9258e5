"""The prediction picture shows what it is given, whatever that is."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances

from sparse_detr.visualization import annotations_as_instances, draw_predictions
from sparse_detr.visualization.panels import CAPTION_HEIGHT, MARGIN, Picture
from sparse_detr.visualization.predictions import class_colour, class_name

GREY = 120


def grey_image(height: int = 320, width: int = 640) -> Picture:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def detections(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Instances:
    return Instances(
        (320, 640),
        pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
    )


def truth(boxes: list[list[float]], classes: list[int]) -> Instances:
    return Instances(
        (320, 640),
        gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
    )


def panel(picture: Picture, number: int = 0, height: int = 320, width: int = 640) -> Picture:
    """The image of a panel, without caption and margin."""
    top, left = MARGIN + CAPTION_HEIGHT, MARGIN + number * (width + MARGIN)
    return picture[top : top + height, left : left + width]


def is_drawn_on(pixels: Picture) -> bool:
    return bool((pixels != GREY).any())


def test_ground_truth_and_predictions_are_side_by_side_at_the_images_size() -> None:
    picture = draw_predictions(grey_image(), detections([], [], []), truth([], []))
    assert picture.shape == (320 + CAPTION_HEIGHT + 2 * MARGIN, 2 * 640 + 3 * MARGIN, 3)
    assert picture.dtype == np.uint8


def test_without_ground_truth_there_is_one_panel() -> None:
    picture = draw_predictions(grey_image(), detections([], [], []))
    assert picture.shape[1] == 640 + 2 * MARGIN


def test_without_boxes_the_image_is_unchanged() -> None:
    picture = draw_predictions(grey_image(), detections([], [], []), truth([], []))
    assert not is_drawn_on(panel(picture, 0))
    assert not is_drawn_on(panel(picture, 1))


def test_a_box_is_drawn_at_its_place_in_its_own_panel_only() -> None:
    box = [100.0, 50.0, 300.0, 250.0]
    picture = draw_predictions(grey_image(), detections([box], [0.9], [0]), truth([], []))
    assert not is_drawn_on(panel(picture, 0))
    drawn = (panel(picture, 1) != GREY).any(-1)
    for row, column in ((150, 100), (150, 300), (50, 250), (250, 200)):
        assert drawn[row - 3 : row + 3, column - 3 : column + 3].any(), (row, column)
    assert not drawn[100:200, 150:250].any(), "the inside of a box stays visible"
    assert not drawn[:, 320:].any()


def test_small_images_are_enlarged_and_their_boxes_with_them() -> None:
    image = grey_image(80, 160)
    picture = draw_predictions(image, detections([[40.0, 20.0, 120.0, 60.0]], [0.9], [0]))
    drawn = (panel(picture) != GREY).any(-1)
    assert drawn[160, 160 - 4 : 160 + 4].any()
    assert drawn[160, 480 - 4 : 480 + 4].any()
    assert not drawn[:, 500:].any()


def test_predictions_below_the_threshold_are_left_out() -> None:
    low = detections([[100.0, 50.0, 300.0, 250.0]], [0.29], [0])
    assert not is_drawn_on(panel(draw_predictions(grey_image(), low, score_threshold=0.3)))
    assert is_drawn_on(panel(draw_predictions(grey_image(), low, score_threshold=0.29)))


def test_where_nothing_reaches_the_threshold_the_best_score_is_told() -> None:
    low = detections([[100.0, 50.0, 300.0, 250.0]], [0.2], [0])
    nothing, told = (
        draw_predictions(grey_image(), each)[: MARGIN + CAPTION_HEIGHT]
        for each in (detections([], [], []), low)
    )
    assert (told < 128).sum() > (nothing < 128).sum()


def test_a_class_has_the_same_colour_in_both_panels() -> None:
    box = [100.0, 50.0, 300.0, 250.0]
    picture = draw_predictions(grey_image(), detections([box], [0.9], [3]), truth([box], [3]))
    edges = [panel(picture, number)[240:260, 290:310] for number in (0, 1)]
    assert is_drawn_on(edges[0])
    assert np.array_equal(*edges)


def test_colours_of_the_first_classes_differ() -> None:
    colours = np.array([class_colour(i) for i in range(20)])
    distance = np.abs(colours[:, None] - colours[None]).max(-1) + np.eye(20)
    assert distance.min() > 0.1


def test_a_thousand_boxes_are_drawn() -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 300, (1000, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(1, 20, (1000, 2))], 1).tolist()
    many = detections(boxes, [0.5] * 1000, [i % 80 for i in range(1000)])
    assert is_drawn_on(panel(draw_predictions(grey_image(), many)))


@pytest.mark.parametrize("name", ["Straßenbahn", "犬", "כלב", "$\\alpha$ $", "", "a\nb", "🦓"])
def test_any_class_name_is_drawn_without_a_warning(name: str) -> None:
    one = detections([[100.0, 50.0, 300.0, 250.0]], [0.9], [0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_drawn_on(panel(draw_predictions(grey_image(), one, class_names=[name])))


def test_a_class_without_a_name_shows_its_number() -> None:
    assert class_name(1, ["dog", "cat"]) == "cat"
    assert class_name(2, ["dog", "cat"]) == "class 2"
    assert class_name(0, None) == "class 0"


def test_boxes_partly_outside_and_of_no_size_are_drawn() -> None:
    odd = detections([[-50.0, -50.0, 900.0, 500.0], [10.0, 10.0, 10.0, 10.0]], [0.9, 0.9], [0, 1])
    assert draw_predictions(grey_image(), odd).shape[1] == 640 + 2 * MARGIN


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 2)])
def test_extreme_image_sizes_are_drawn(shape: tuple[int, int]) -> None:
    picture = draw_predictions(np.zeros((*shape, 3), np.uint8), detections([], [], []))
    assert picture.shape[2] == 3


def test_an_image_that_is_not_rgb_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8 in RGB"):
        draw_predictions(np.zeros((4, 4), np.uint8), detections([], [], []))


def test_annotations_become_boxes_in_corners_with_their_crowd_marks() -> None:
    record = {
        "height": 20,
        "width": 30,
        "annotations": [
            {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 5},
            {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 1},
        ],
    }
    instances = annotations_as_instances(record)
    assert instances.gt_boxes.tensor.tolist() == [[1, 2, 4, 6], [1, 2, 3, 4]]
    assert instances.gt_classes.tolist() == [5, 0]
    assert instances.gt_is_crowd.tolist() == [False, True]
    assert len(annotations_as_instances({"height": 2, "width": 3})) == 0
