"""A detector also says what it did with the tokens of each image, and detects the same."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from builders import batch, small_detector
from sparse_detr.evaluation import TokenUse, WithTokenUse
from sparse_detr.evaluation.image_sparsity import ImageSparsity
from sparse_detr.evaluation.objects import NO_OBJECTS
from sparse_detr.inference import inspect_image, optimize_for_inference

SIZES = [(70, 90), (64, 64), (50, 100)]


def uses(model: object, inputs: list, keep_ratio: object = None) -> list[TokenUse]:
    return [output["token_use"] for output in WithTokenUse(model)(inputs, keep_ratio)]


def brute_force_map(model: object, sample: dict, half_cell_shift: bool = True) -> Tensor:
    """The attention that each token of one image received, sample by sample."""
    output = inspect_image(model, sample, with_sampling=True).output
    shapes = output.tokens.spatial_shapes
    levels = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    for layer in output.decoder.sampling:
        locations, weights = layer.locations[0].double(), layer.weights[0].double()
        for q, h, lv, p in itertools.product(*map(range, weights.shape)):
            rows, columns = shapes[lv]
            shift = 0.0 if half_cell_shift else 0.5
            x = float(locations[q, h, lv, p, 0]) * columns - shift
            y = float(locations[q, h, lv, p, 1]) * rows - shift
            for i, j in itertools.product((0, 1), (0, 1)):
                row, column = math.floor(y) + i, math.floor(x) + j
                if 0 <= row < rows and 0 <= column < columns:
                    share = (1 - abs(y - row)) * (1 - abs(x - column))
                    levels[lv][row, column] += float(weights[q, h, lv, p]) * share
    return torch.cat([level.flatten() for level in levels])


def test_detections_are_those_of_the_model() -> None:
    model = small_detector()
    inputs = batch(SIZES)
    with torch.no_grad():
        expected = model(inputs, keep_ratio=0.5)
    for got, wanted in zip(WithTokenUse(model)(inputs, 0.5), expected, strict=True):
        assert torch.equal(got["instances"].scores, wanted["instances"].scores)
        boxes = got["instances"].pred_boxes.tensor, wanted["instances"].pred_boxes.tensor
        assert torch.equal(*boxes)
    assert set(expected[0]) == {"instances"}, "the model itself carries nothing more"


@pytest.mark.parametrize("half_cell_shift", [True, False])
def test_the_attention_map_equals_an_accumulation_sample_by_sample(half_cell_shift: bool) -> None:
    model = small_detector(criterion__token_scoring__half_cell_shift=half_cell_shift)
    inputs = batch([(50, 70)])
    (use,) = uses(model, inputs)
    expected = brute_force_map(model, inputs[0], half_cell_shift)
    torch.testing.assert_close(use.attention.double(), expected, rtol=1e-5, atol=1e-5)


def test_an_image_in_a_batch_gives_what_it_gives_alone() -> None:
    model = small_detector().double()
    inputs = batch(SIZES)
    for item, together in zip(inputs, uses(model, inputs), strict=True):
        (alone,) = uses(model, [item])
        assert together.level_sizes == alone.level_sizes
        assert together.image_size == alone.image_size == tuple(item["image"].shape[1:])
        assert torch.equal(together.kept, alone.kept)
        torch.testing.assert_close(together.attention, alone.attention, rtol=1e-9, atol=1e-9)


def test_kept_tokens_are_the_selection_without_surplus_and_padding() -> None:
    model = small_detector()
    inputs = batch(SIZES)
    for use, item in zip(uses(model, inputs, 0.3), inputs, strict=True):
        tokens = sum(rows * columns for rows, columns in use.level_sizes)
        assert use.kept.shape == (1, tokens) and use.attention.shape == (tokens,)
        assert int(use.kept.sum()) == int(torch.tensor(tokens * 0.3)) + 1
        selection = inspect_image(model, item, 0.3).output.selection
        assert torch.equal(use.kept[0], selection.layers[0].membership(tokens)[0])


def test_layers_that_keep_different_tokens_are_told_apart() -> None:
    (use,) = uses(small_detector(), batch([(64, 64)]), "layers:0.5,0.3,0.1")
    counts = use.kept.sum(1).tolist()
    assert len(counts) == 3 and counts[0] > counts[1] > counts[2]
    assert torch.equal(use.kept_by_any, use.kept[0] | use.kept[1] | use.kept[2])


def test_a_dense_detector_keeps_no_selection_but_has_attention() -> None:
    (use,) = uses(small_detector("deformable_detr"), batch([(64, 64)]))
    assert use.kept is None and use.kept_by_any is None
    assert float(use.attention.sum()) > 0


def test_an_optimised_detector_gives_the_same() -> None:
    model = small_detector()
    inputs = batch(SIZES)
    plain, fast = uses(model, inputs), uses(optimize_for_inference(model), inputs)
    for one, other in zip(plain, fast, strict=True):
        assert torch.equal(one.kept, other.kept)
        torch.testing.assert_close(one.attention, other.attention, rtol=1e-2, atol=1e-3)


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        WithTokenUse(small_detector().train())(batch([(64, 64)]))


@pytest.mark.parametrize("system", ["sparse_single_scale_detr", "sparse_detr_objectness"])
def test_every_way_of_selecting_tokens_is_told(system: str) -> None:
    model = small_detector(system)
    for use in uses(model, batch(SIZES), 1.0):
        figures = ImageSparsity.of(0, use, NO_OBJECTS)
        assert use.kept.all() and figures.corr == 1
        assert figures.kept == figures.tokens
    for use in uses(model, batch(SIZES), 0.3):
        assert 0 < ImageSparsity.of(0, use, NO_OBJECTS).corr < 1
