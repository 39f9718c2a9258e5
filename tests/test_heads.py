"""The detection heads: their number, order, sharing and first values."""

import math

import pytest
import torch

from sparse_detr.heads import DetectionHead, DetectionHeads

C = 8


def heads(**kwargs):
    defaults = dict(hidden_dim=C, num_classes=3, num_decoder_layers=2, two_stage=True)
    return DetectionHeads(**(defaults | kwargs))


def test_classes_start_at_one_per_cent():
    head = DetectionHead(C, 3)
    torch.testing.assert_close(
        head.class_embed.bias.sigmoid(), torch.full((3,), 0.01), rtol=1e-6, atol=0
    )
    assert head.class_embed.bias[0].item() == pytest.approx(-4.59512, abs=1e-5)
    assert head.class_embed.weight.abs().max() <= 1 / math.sqrt(C)


def test_boxes_start_at_their_references():
    head = DetectionHead(C, 3).double()
    reference = torch.rand(4, 4).double() * 0.8 + 0.1
    torch.testing.assert_close(head.boxes(torch.randn(4, C).double(), reference), reference)


def test_all_stages_start_equal_but_are_individual():
    module = heads()
    first, second = module.decoder(0), module.decoder(1)
    assert torch.equal(first.class_embed.weight, second.class_embed.weight)
    assert first.class_embed.weight is not second.class_embed.weight


def test_stages_are_ordered_decoder_first_stage_encoder():
    module = heads(num_encoder_layers=3, encoder_auxiliary=True)
    assert len(module.stages) == 2 + 1 + 2
    assert [module.decoder(0), module.decoder(1), module.first_stage()] == list(module.stages[:3])
    assert [module.encoder(0), module.encoder(1)] == list(module.stages[3:])


def test_the_last_encoder_layer_has_no_auxiliary_head():
    assert heads(num_encoder_layers=6, encoder_auxiliary=True).num_encoder_heads == 5
    assert heads(num_encoder_layers=6, encoder_auxiliary=False).num_encoder_heads == 0
    assert heads(num_encoder_layers=1, encoder_auxiliary=True).num_encoder_heads == 0


def test_shared_heads_are_one_module_for_every_stage():
    module = heads(individual=False)
    assert len(module.stages) == 1
    assert module.decoder(0) is module.decoder(1) is module.first_stage()


@pytest.mark.parametrize("individual", [True, False])
def test_learned_queries_start_from_small_boxes_in_the_first_head_only(individual):
    module = heads(two_stage=False, individual=individual)
    biases = [stage.bbox_embed.layers[-1].bias.tolist() for stage in module.stages]
    assert biases == [[0, 0, -2, -2]] + [[0, 0, 0, 0]] * (len(biases) - 1)


def test_two_stage_heads_start_without_any_offset():
    for stage in heads().stages:
        assert (stage.bbox_embed.layers[-1].bias == 0).all()
        assert (stage.bbox_embed.layers[-1].weight == 0).all()


def test_a_centre_moves_only_the_centre():
    head = DetectionHead(C, 3).double()
    with torch.no_grad():
        head.bbox_embed.layers[-1].bias.copy_(torch.tensor([0.5, -0.5, 1.0, -1.0]))
    centre = torch.tensor([[0.3, 0.6]]).double()
    box = head.boxes(torch.zeros(1, C).double(), centre)[0]
    logit = (centre / (1 - centre)).log()[0]
    expected = torch.stack([logit[0] + 0.5, logit[1] - 0.5, *torch.tensor([1.0, -1.0]).double()])
    torch.testing.assert_close(box, expected.sigmoid())


def test_references_at_the_border_of_the_image_stay_finite():
    head = DetectionHead(C, 3)
    reference = torch.tensor([[0.0, 1.0, 0.0, 1.0]], requires_grad=True)
    boxes = head.boxes(torch.zeros(1, C), reference)
    boxes.sum().backward()
    assert boxes.isfinite().all() and reference.grad.isfinite().all()


def test_proposals_at_infinity_give_the_box_of_ones_and_no_gradient():
    head = DetectionHead(C, 3)
    features = torch.randn(1, C, requires_grad=True)
    boxes = head.boxes_from_logits(features, torch.full((1, 4), float("inf")))
    boxes.sum().backward()
    assert boxes.tolist() == [[1.0] * 4]
    assert (features.grad == 0).all()


def test_a_first_stage_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="two_stage must be True"):
        heads(two_stage=False).first_stage()


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        heads(num_classes=0)


def test_a_logit_for_no_object_comes_on_top_of_the_classes():
    module = heads(no_object_logit=True)
    assert module.num_classes == 3 and module.no_object_logit
    assert all(stage.class_embed.out_features == 4 for stage in module.stages)


def test_detrs_heads_start_as_linear_layers_do():
    module = heads(two_stage=False, class_prior=None, boxes_start_at_references=False)
    head = module.decoder(0)
    for values in (head.class_embed.bias, head.last_box_layer.bias, head.last_box_layer.weight):
        assert 0 < values.abs().max() <= 1 / math.sqrt(C)


def test_the_probability_that_classes_start_with_can_be_set():
    bias = heads(class_prior=0.2).decoder(0).class_embed.bias
    torch.testing.assert_close(bias.sigmoid(), torch.full((3,), 0.2))


def test_references_are_kept_away_from_the_sides_by_eps():
    edge = torch.tensor([[0.0, 1.0, 0.5, 0.5]])
    for eps in (1e-5, 1e-3):
        head = DetectionHeads(8, 3, 1, two_stage=True, reference_eps=eps).decoder(0)
        box = head.boxes(torch.zeros(1, 8), edge)[0].detach()
        assert float(box[0]) == pytest.approx(eps / (1 + eps), rel=1e-3)
