"""Inspecting one image gives what the detector detects, and what it kept."""

from __future__ import annotations

import pytest
import torch

from builders import batch, small_detector
from sparse_detr.inference import inspect_image, level_strides


def test_detections_equal_those_of_the_model() -> None:
    model = small_detector()
    (sample,) = batch([(70, 90)])
    with torch.no_grad():
        expected = model([sample], keep_ratio=0.5)[0]["instances"]
    got = inspect_image(model, sample, keep_ratio=0.5).instances
    assert torch.equal(got.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(got.scores, expected.scores)
    assert torch.equal(got.pred_classes, expected.pred_classes)


def test_keep_ratio_of_a_call_changes_the_kept_tokens_only_for_that_call() -> None:
    model = small_detector(keep_ratio=0.2)
    (sample,) = batch([(64, 64)])
    counts = []
    for ratio in (None, 0.7, None):
        selection = inspect_image(model, sample, ratio).output.selection
        assert selection is not None
        counts.append(selection.layers[0].kept_counts[0])
    assert counts[0] == counts[2] < counts[1]


def test_sizes_are_those_of_the_network_input_and_its_padding() -> None:
    model = small_detector()
    (sample,) = batch([(70, 90)])
    sample["height"], sample["width"] = 35, 45
    inspected = inspect_image(model, sample)
    assert inspected.image_size == (70, 90)
    assert inspected.padded_size == (70, 90)
    assert inspected.instances.image_size == (35, 45)


def test_padded_size_follows_a_backbone_that_asks_for_divisible_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_detector()
    monkeypatch.setattr(type(model.backbone), "size_divisibility", 32)
    inspected = inspect_image(model, batch([(70, 90)])[0])
    assert inspected.image_size == (70, 90)
    assert inspected.padded_size == (96, 96)


def test_strides_beyond_the_backbone_double() -> None:
    assert level_strides(small_detector()) == (8, 16, 32, 64)


def test_sampling_is_kept_only_on_request() -> None:
    model = small_detector()
    (sample,) = batch([(64, 64)])
    assert inspect_image(model, sample).output.decoder.sampling == ()
    inspected = inspect_image(model, sample, with_sampling=True)
    assert len(inspected.output.decoder.sampling) == len(model.decoder.layers)


def test_every_decoder_layer_predicts_on_request() -> None:
    model = small_detector()
    (sample,) = batch([(64, 64)])
    assert len(inspect_image(model, sample).output.decoder.predictions) == 1
    inspected = inspect_image(model, sample, all_layers=True)
    assert len(inspected.output.decoder.predictions) == len(model.decoder.layers)


def test_the_image_is_padded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_detector()
    calls = []
    original = type(model).padded_groups

    def counted(self, images):
        calls.append(images)
        return original(self, images)

    monkeypatch.setattr(type(model), "padded_groups", counted)
    inspect_image(model, batch([(64, 64)])[0])
    assert len(calls) == 1


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="training mode"):
        inspect_image(small_detector().train(), batch([(64, 64)])[0])
