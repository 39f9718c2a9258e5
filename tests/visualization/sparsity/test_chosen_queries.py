"""Queries are found by rank, index and place, with where they looked in every layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from builders import batch, small_detector
from sparse_detr.config.loading import load_config
from sparse_detr.inference import inspect_image
from sparse_detr.layers.boxes import cxcywh_to_xyxy
from sparse_detr.visualization.sparsity import QueryChoice
from sparse_detr.visualization.sparsity.chosen_queries import queries_of


def inspected_image():
    model, (sample,) = small_detector(), batch([(70, 100)])
    sample["height"], sample["width"] = 140, 200
    return inspect_image(model, sample, with_sampling=True, all_layers=True)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("3", QueryChoice(rank=3)),
        ("rank:0", QueryChoice(rank=0)),
        ("index:17", QueryChoice(index=17)),
        ("at:120,80.5", QueryChoice(point=(120.0, 80.5))),
    ],
)
def test_choices_are_read_from_text(text: str, choice: QueryChoice) -> None:
    assert QueryChoice.of_text(text) == choice


@pytest.mark.parametrize("text", ["", "-1", "index:x", "at:1", "at:1,2,3", "at:.,.", "best"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a rank"):
        QueryChoice.of_text(text)


def test_ranks_follow_the_detections_and_each_query_comes_once() -> None:
    inspected = inspected_image()
    choices = [QueryChoice(rank=r) for r in (0, 1, 2, 9)]
    found = queries_of(inspected, [7, 7, 4], choices)
    assert [(q.index, q.rank) for q in found] == [(7, 0), (4, 2)]


def test_the_query_nearest_to_a_point_of_the_original_image_is_found() -> None:
    inspected = inspected_image()
    boxes = inspected.output.decoder.predictions[-1].boxes_cxcywh[0]
    x, y = (boxes[6, :2] * torch.tensor([200.0, 140.0])).tolist()
    (found,) = queries_of(inspected, [0], [QueryChoice(point=(x, y))])
    assert found.index == 6
    assert found.rank is None


def test_sampling_is_given_in_pixels_for_every_layer() -> None:
    inspected = inspected_image()
    (found,) = queries_of(inspected, [3], [QueryChoice(index=3)])
    decoder = inspected.output.decoder
    assert len(found.layers) == len(decoder.sampling) == len(decoder.predictions)
    for layer, sampling, predictions in zip(
        found.layers, decoder.sampling, decoder.predictions, strict=True
    ):
        heads, levels, points = sampling.weights.shape[2:]
        assert layer.points.shape == (heads * levels * points, 2)
        assert layer.weights.sum() == pytest.approx(heads, rel=1e-5)
        place = (1 * levels + 2) * points + 3
        expected = sampling.locations[0, 3, 1, 2, 3] * torch.tensor([100.0, 70.0])
        np.testing.assert_allclose(layer.points[place], expected.numpy(), rtol=1e-6)
        assert layer.levels[place] == 2
        assert layer.weights[place] == pytest.approx(float(sampling.weights[0, 3, 1, 2, 3]))
        box = cxcywh_to_xyxy(predictions.boxes_cxcywh[0, 3]) * torch.tensor([100.0, 70.0] * 2)
        assert layer.box_xyxy is not None
        np.testing.assert_allclose(layer.box_xyxy, box.numpy(), rtol=1e-5)


def test_the_final_layer_alone_has_a_box_where_the_others_predict_none() -> None:
    model, (sample,) = small_detector(), batch([(70, 100)])
    inspected = inspect_image(model, sample, with_sampling=True)
    (found,) = queries_of(inspected, [0], [QueryChoice(rank=0)])
    assert [layer.box_xyxy is None for layer in found.layers] == [True, False]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (QueryChoice(index=10), "index:10 must be below 10"),
        (QueryChoice(point=(201.0, 3.0)), "outside the image of 200x140"),
    ],
)
def test_choices_that_do_not_exist_are_refused(choice: QueryChoice, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        queries_of(inspected_image(), [0], [choice])


def test_a_dense_attention_is_shown_by_its_heaviest_cells() -> None:
    config = load_config("models/small_sparse_single_scale_detr")
    config.model.num_classes = 5
    (sample,) = batch([(160, 200)])
    model = instantiate(config.model).eval()
    inspected = inspect_image(model, sample, with_sampling=True, all_layers=True)
    (found,) = queries_of(inspected, [3], [QueryChoice(index=3)])
    attention = inspected.output.decoder.attention_maps[-1][0, 3]
    layer = found.layers[-1]
    assert layer.weights[0] == pytest.approx(float(attention.max()))
    rows, columns = inspected.output.tokens.spatial_shapes[0]
    row, column = divmod(int(attention.argmax()), columns)
    height, width = inspected.padded_size
    centre = [(column + 0.5) * width / columns, (row + 0.5) * height / rows]
    np.testing.assert_allclose(layer.points[0], centre, rtol=1e-5)
