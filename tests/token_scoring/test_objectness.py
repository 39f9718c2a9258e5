"""Objectness: scores, predictions and what their loss trains."""

import pytest
import torch

from builders import batch, small_detector
from sparse_detr.inference import inspect_image
from sparse_detr.structures import gather_rows

SIZES = [(96, 128), (64, 160)]


@pytest.fixture(scope="module")
def detector():
    return small_detector("sparse_detr_objectness").double()


@torch.no_grad()
def output_of(model, supervise=False):
    tokens = model.extract_tokens(model.preprocess(batch(SIZES)))
    return model.detect(tokens, supervise=supervise)


def test_the_kept_tokens_are_those_with_the_best_class_logit(detector):
    output = output_of(detector, supervise=True)
    selection, grid = output.selection, output.tokens.geometry.proposals
    best = selection.predictions.logits.amax(-1)
    own = ~output.tokens.padding_mask
    assert torch.equal(selection.token_scores[own], best[own])
    kept = selection.layers[0].membership(best.shape[1])
    for image in range(len(SIZES)):
        proposals = grid[1][image]
        left = best[image][proposals & ~kept[image]]
        assert best[image][kept[image]].min() >= left.max()
        assert not (kept[image] & output.tokens.padding_mask[image]).any()


def test_the_head_reads_the_tokens_with_position_through_the_shared_projection(detector):
    output = output_of(detector, supervise=True)
    tokens, predictions = output.tokens, output.selection.predictions
    projection, head = detector.proposal_projection, detector.token_scoring.head
    inside = tokens.geometry.proposals[1]
    features = (tokens.features + tokens.position).masked_fill(~inside[..., None], 0)
    projected = projection.norm(projection.projection(features))
    torch.testing.assert_close(predictions.logits, head.class_embed(projected))
    boxes = (head.bbox_embed(projected) + tokens.geometry.proposals[0]).sigmoid()
    torch.testing.assert_close(predictions.boxes_cxcywh, boxes)
    assert torch.equal(predictions.candidate_mask, inside)


def test_no_box_is_computed_where_nobody_asks_for_it(detector):
    calls = []
    handle = detector.token_scoring.head.bbox_embed.register_forward_hook(
        lambda *_: calls.append(1)
    )
    assert output_of(detector).selection.predictions is None
    handle.remove()
    assert calls == []


def test_its_loss_trains_head_projection_position_and_backbone_but_nothing_behind_it():
    model = small_detector("sparse_detr_objectness").train()
    losses = model(batch(SIZES, [3, 2]))
    sum(value for name, value in losses.items() if name.endswith("_objectness")).backward()
    # Box terms of all stages are summed in one tensor: the others' gradients are zeros.
    trained = {
        name.split(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert trained == {
        "backbone",
        "feature_projection",
        "position_embedding",
        "proposal_projection",
        "token_scoring",
    }


def test_edge_tokens_and_padding_are_no_candidates_of_its_loss(detector):
    predictions = output_of(detector, supervise=True).selection.predictions
    edge = ~predictions.candidate_mask
    assert (predictions.boxes_cxcywh[edge] == 1).all()


def test_corr_is_logged_though_there_is_no_loss_of_it(detector):
    tokens = detector.extract_tokens(detector.preprocess(batch(SIZES)))
    output = detector.detect(tokens, supervise=True, with_sampling=True)
    loss, logs = detector.criterion.token_scoring(output)
    assert loss is None and 0 < logs["corr"] < 1


def test_an_inspected_image_tells_its_scores(detector):
    (sample,) = batch([(96, 128)])
    selection = inspect_image(detector, sample).output.selection
    kept = selection.layers[0].kept_indices
    scores = gather_rows(selection.token_scores, kept)
    assert (scores.diff(dim=1) <= 0).all()
