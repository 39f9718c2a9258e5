"""SMCA's decoder as part of a detector."""

import pytest
import torch

from builders import batch, small_detector


def detect(model, sizes, **options):
    tokens = model.extract_tokens(model.preprocess(batch(sizes)))
    with torch.no_grad():
        return model.detect(tokens, **options)


@pytest.fixture(scope="module")
def smca():
    return small_detector("smca").double()


def test_boxes_of_all_layers_start_from_the_same_centre(smca):
    head = smca.heads.decoder(0)
    torch.nn.init.zeros_(head.last_box_layer.weight)
    torch.nn.init.zeros_(head.last_box_layer.bias)
    output = detect(smca, [(96, 128), (64, 64)], supervise=True)
    first, last = (p.boxes_cxcywh[..., :2] for p in output.decoder.predictions)
    torch.testing.assert_close(first, last)
    torch.testing.assert_close(first[0], first[1])  # learned queries: the same for every image
    assert first[0].std(0).min() > 0


def test_the_prior_draws_the_attention_to_the_centre():
    model = small_detector("smca", decoder__heads_share_prior=True).double()
    for layer in model.decoder.layers:
        torch.nn.init.zeros_(layer.prior.scale.weight)
        torch.nn.init.constant_(layer.prior.scale.bias, 30.0)
    seen = []
    model.decoder.initial_centres.register_forward_hook(lambda m, i, out: seen.append(out))
    output = detect(model, [(160, 224)], with_sampling=True)
    height, width = output.tokens.spatial_shapes[0]
    cells = seen[0][0] * torch.tensor([224 / 32, 160 / 32])
    x, y = (cells[:, axis].round().long().clamp(max=n - 1) for axis, n in ((0, width), (1, height)))
    for layer in output.decoder.attention_maps:
        assert torch.equal(layer[0].argmax(-1), y * width + x)


def test_every_image_has_its_own_weights_of_the_levels_unless_released():
    inputs = batch([(96, 128), (96, 128)])
    for released in (False, True):
        model = small_detector("smca_multi_scale", decoder__alpha_of_first_image=released).double()
        with torch.no_grad():
            together, alone = model(inputs)[1], model(inputs[1:])[0]
        same = torch.allclose(together["instances"].scores, alone["instances"].scores)
        assert same is not released


@pytest.mark.parametrize("scale", ["fixed", "isotropic", "axes", "axes_and_product"])
def test_every_form_of_the_prior_trains(scale):
    model = small_detector("smca", decoder__prior_scale=scale).train()
    sum(model(batch([(96, 128), (64, 96)], [2, 1])).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("system", ["smca", "smca_multi_scale", "smca_multi_scale_reconstruction"])
def test_a_step_in_half_precision_is_close_to_a_whole_one(system):
    model = small_detector(system).train()
    inputs = batch([(96, 128), (64, 96)], [2, 1])
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(sum(model(inputs).values()))
    losses[1].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert abs(losses[1] / losses[0] - 1) < 0.1


def test_attention_of_the_halved_level_is_told_on_the_tokens(smca):
    model = small_detector("smca_multi_scale").double()
    output = detect(model, [(96, 128), (160, 96)], with_sampling=True)
    for layer in output.decoder.attention_maps:
        assert layer.shape == (2, 10, output.tokens.features.shape[1])
        torch.testing.assert_close(layer.sum(-1), torch.full((2, 10), 4.0).double())
        assert (layer.masked_select(output.tokens.padding_mask[:, None]) == 0).all()


def test_recomputed_activations_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model = small_detector(
            "smca_multi_scale",
            decoder__checkpoint_activations=recompute,
            encoder__checkpoint_activations=recompute,
        ).double()
        sum(model.train()(batch([(96, 128)], [2])).values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)
