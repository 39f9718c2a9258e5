"""A view holds the model's own numbers, for any selection and any decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from builders import batch, small_detector
from sparse_detr.decoder_attention_map import attention_received, binarised_target
from sparse_detr.inference import inspect_image
from sparse_detr.visualization.sparsity import QueryChoice, view_sparsity

BEST = [QueryChoice(rank=rank) for rank in range(2)]


def test_scores_attention_and_kept_tokens_are_those_of_the_model() -> None:
    model, (sample,) = small_detector(), batch([(70, 100)])
    view = view_sparsity(model, sample, "scene", BEST)
    output = inspect_image(model, sample, with_sampling=True, all_layers=True).output
    assert output.selection is not None and output.selection.token_scores is not None
    attention = attention_received(output)

    assert np.array_equal(view.scores, output.selection.token_scores[0].numpy())
    assert np.array_equal(view.attention, attention[0].numpy())
    kept = output.selection.union(attention.shape[1])
    assert np.array_equal(view.kept_by_any, kept[0].numpy())
    target = binarised_target(attention, output.tokens.padding_mask, [int(kept.sum())])
    assert np.array_equal(view.target, target[0].bool().numpy())
    assert view.corr == pytest.approx(float((attention * kept).sum() / attention.sum()))
    assert view.keep_ratio == "0.3"


@pytest.mark.parametrize("edge_tokens_compete", [False, True])
@pytest.mark.parametrize("ratio", [0.1, 0.35, 0.8, 1.0])
def test_the_first_tokens_of_the_ranking_are_those_kept_at_any_ratio(
    ratio: float, edge_tokens_compete: bool
) -> None:
    model, (sample,) = small_detector(), batch([(70, 100)])
    model.token_selection.edge_tokens_compete = edge_tokens_compete
    ranking = view_sparsity(model, sample, "scene", BEST).ranking
    view = view_sparsity(model, sample, "scene", BEST, keep_ratio=ratio)
    assert ranking is not None
    kept = np.flatnonzero(view.kept_by_any)
    assert sorted(ranking[: len(kept)].tolist()) == kept.tolist()
    assert len(ranking) == view.num_tokens


def test_detections_are_those_of_the_model_in_pixels_of_its_input() -> None:
    model, (sample,) = small_detector(), batch([(70, 100)])
    sample["height"], sample["width"] = 140, 200
    view = view_sparsity(model, sample, "scene", BEST)
    with torch.no_grad():
        expected = model([sample])[0]["instances"]
    assert view.detections.scores is not None
    np.testing.assert_allclose(view.detections.scores, expected.scores.numpy(), rtol=1e-5)
    assert np.array_equal(view.detections.classes, expected.pred_classes.numpy())
    halved = view.detections.boxes_xyxy.clip(0, [100, 70, 100, 70])
    np.testing.assert_allclose(halved * 2, expected.pred_boxes.tensor.numpy(), atol=1e-3)
    assert view.original_size == (140, 200)
    assert view.image_size == (70, 100)


def test_layers_that_keep_different_tokens_are_kept_apart() -> None:
    model, (sample,) = small_detector(), batch([(70, 100)])
    view = view_sparsity(model, sample, "scene", BEST, keep_ratio="layers:0.5,0.2,0.1")
    counts = [int(kept.sum()) for kept in view.kept]
    assert len(counts) == 3
    assert counts[0] > counts[1] > counts[2]
    assert np.array_equal(view.kept_by_any, view.kept[0])
    assert int(view.target.sum()) == counts[0]
    assert view.keep_ratio == "layers:0.5,0.2,0.1"


@pytest.mark.parametrize("ratio", ["levels:0.1,0.2,0.5,1", "mass:0.5", 0.4])
def test_any_form_of_keeping_ratio_is_taken(ratio: Any) -> None:
    model, (sample,) = small_detector(), batch([(70, 100)])
    view = view_sparsity(model, sample, "scene", BEST, keep_ratio=ratio)
    assert view.keep_ratio == str(ratio)
    assert 0 < view.kept_by_any.sum() < view.num_tokens


def test_a_dense_detector_keeps_everything_and_has_no_scores() -> None:
    model, (sample,) = small_detector("deformable_detr"), batch([(70, 100)])
    view = view_sparsity(model, sample, "scene", BEST)
    assert view.keep_ratio is None
    assert view.scores is None
    assert view.ranking is None
    assert int(view.kept_by_any.sum()) == view.num_tokens
    assert view.corr == pytest.approx(1.0)
    assert len(view.queries) == 2


def test_padding_is_neither_kept_nor_attended(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (sample,) = small_detector(), batch([(70, 90)])
    monkeypatch.setattr(type(model.backbone), "size_divisibility", 64)
    view = view_sparsity(model, sample, "scene", BEST, keep_ratio=1.0)
    assert view.padded_size == (128, 128)
    covered = np.zeros(len(view.attention), dtype=bool)
    for level in view.levels:
        level.cells(covered)[: level.covered[0], : level.covered[1]] = True
    assert np.array_equal(view.kept_by_any, covered)
    assert not view.attention[~covered].any()
    assert not view.target[~covered].any()
    assert view.ranking is not None
    assert covered[view.ranking].all()


def test_ground_truth_is_scaled_to_the_networks_input() -> None:
    model, (sample,) = small_detector(), batch([(70, 100)])
    truth = Instances(
        (140, 50),
        gt_boxes=Boxes(torch.tensor([[10.0, 20.0, 30.0, 60.0]])),
        gt_classes=torch.tensor([3]),
    )
    view = view_sparsity(model, sample, "scene", BEST, truth)
    assert view.truth is not None
    assert view.truth.boxes_xyxy.tolist() == [[20.0, 10.0, 60.0, 30.0]]
    assert view.truth.classes.tolist() == [3]
