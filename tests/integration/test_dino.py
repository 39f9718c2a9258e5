"""DINO as a whole: size, first values, denoising in training alone, half precision, no objects."""

import math

import pytest
import torch
from detectron2.config import instantiate

from builders import batch, small_config, small_detector
from sparse_detr.config.loading import load_config
from sparse_detr.engine.optimizer import build_adamw

SIZES = [(96, 128), (160, 200)]
# Parameters of detrex's models, and those of them that are trained: all but the stem's.
PARAMETERS = {
    "dino/dino_r50_4scale_12ep": (47_650_316, 47_640_908),
    "dino/dino_r50_4scale_36ep": (47_650_316, 47_640_908),
}
SWITCHES = (
    "pad_before_backbone",
    "position_embedding.encode_padding",
    "position_embedding.padding_in_evaluation",
    "query_selection.any_token_competes",
    "query_selection.denoising.unused_rows_seen",
    "decoder.reference_position.scaled_to_padded_map",
    "criterion.supervise_all_rows",
)


@pytest.fixture(scope="module")
def full_size():
    """The model of 12 epochs, without values."""
    with torch.device("meta"):
        return instantiate(load_config("dino/dino_r50_4scale_12ep").model)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_model_has_the_released_number_of_parameters_to_the_last_one(name):
    with torch.device("meta"):
        parameters = list(instantiate(load_config(name).model).parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    assert (sum(p.numel() for p in parameters), trained) == PARAMETERS[name]


def test_the_parts_have_the_measured_sizes(full_size):
    # In millions: encoder, decoder with its heads, backbone, feature projection.
    heads = sum(p.numel() for i in range(7) for p in full_size.heads.stages[i].parameters())
    of_decoder = sum(p.numel() for p in full_size.decoder.parameters())
    sizes = {
        "encoder": sum(p.numel() for p in full_size.encoder.parameters()),
        "decoder": of_decoder + heads,
        "backbone": sum(p.numel() for p in full_size.backbone.parameters()),
        "projection": sum(p.numel() for p in full_size.feature_projection.parameters()),
    }
    assert {k: round(v / 1e6, 3) for k, v in sizes.items()} == {
        "encoder": 7.693,
        "decoder": 10.545,
        "backbone": 23.455,
        "projection": 5.639,
    }


def test_the_optimizer_has_the_released_groups(full_size):
    config = load_config("dino/dino_r50_4scale_12ep").optimizer
    settings = {k: v for k, v in config.items() if k != "_target_"}
    groups = build_adamw(full_size, 2, **settings).param_groups
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in groups} == {
        "main": (1e-4, 1e-4),
        "main norms": (1e-4, 0.0),
        "backbone": (1e-5, 1e-4),
        "sampling": (1e-4, 1e-4),
    }


def test_the_first_values_are_the_released_ones():
    config = small_config("dino", hidden_dim=64)
    config.model.query_selection.num_queries = 40
    model = instantiate(config.model)
    content = model.query_selection.content.weight
    bound = math.sqrt(6 / (40 + 64))
    assert content.abs().max() <= bound and content.std() > bound / 3
    labels = model.query_selection.denoising.label_embedding.weight
    assert labels.std().item() == pytest.approx(1, abs=0.2)
    for head in model.heads.stages:
        assert head.class_embed.bias.eq(-math.log(99)).all()
        assert head.last_box_layer.weight.eq(0).all() and head.last_box_layer.bias.eq(0).all()
        assert head.class_embed.weight.equal(model.heads.stages[0].class_embed.weight)
    first, _ = model.decoder.reference_position.mlp.layers
    assert first.weight.abs().max() <= math.sqrt(6 / (128 + 64))


@pytest.mark.parametrize("released", [False, True])
def test_the_preset_sets_every_switch(released):
    model = small_detector("dino", released_behaviour=released)
    for switch in SWITCHES:
        value = model
        for name in switch.split("."):
            value = getattr(value, name)
        assert value is released, switch


def test_the_losses_of_the_matching_queries_do_not_depend_on_denoising():
    inputs = batch(SIZES, [3, 1])
    with_noise = small_detector("dino").double().train()
    without = small_detector("dino").double().train()
    without.query_selection.denoising = None
    losses, expected = with_noise(inputs), without(inputs)
    assert set(losses) - set(expected) == {
        kind + suffix
        for kind in ("loss_class", "loss_bbox", "loss_giou")
        for suffix in ("_dn", "_dn_0")
    }
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)


def test_inference_draws_nothing():
    model = small_detector("dino")
    state = torch.random.get_rng_state()
    with torch.no_grad():
        model(batch(SIZES))
    assert torch.random.get_rng_state().equal(state)


@pytest.mark.parametrize("system", ["dino", "sparse_dino"])
@pytest.mark.parametrize("num_objects", [[3, 1], [2, 0], [0, 0]])
def test_a_step_in_half_precision_gives_finite_gradients_of_every_parameter(system, num_objects):
    model = small_detector(system).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch(SIZES, num_objects))
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    if sum(num_objects) == 0:
        assert all(v == 0 for k, v in losses.items() if "_dn" in k or "bbox" in k)


def test_recomputed_activations_change_no_loss():
    inputs, totals = batch(SIZES, [2, 3]), []
    for recompute in (False, True):
        model = small_detector("dino").double().train()
        model.decoder.checkpoint_activations = recompute
        torch.manual_seed(3)
        total = sum(model(inputs).values())
        total.backward()
        totals.append((total.detach(), model.query_selection.content.weight.grad))
    torch.testing.assert_close(totals[0], totals[1])


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="reference_position"):
        instantiate(small_config("dino", decoder__reference_position=None).model)
    config = small_config("dino", query_selection__denoising__num_classes=7)
    with pytest.raises(ValueError, match="num_classes"):
        instantiate(config.model)


PUBLISHED = {
    # Epochs, epoch of the drop, temperature and offset of the position encoding.
    "dino/dino_r50_4scale_12ep": (12, 11, 10000.0, -0.5),
    "dino/dino_r50_4scale_300dn_12ep": (12, 11, 10000.0, -0.5),
    "dino/dino_r50_4scale_24ep": (24, 20, 20.0, 0.0),
    "dino/dino_r50_4scale_36ep": (36, 30, 20.0, 0.0),
    "dino/sparse_dino_r50_4scale_rho30_36ep": (36, 30, 20.0, 0.0),
    "dino/dino_r101_4scale_12ep": (12, 11, 10000.0, -0.5),
    "dino/dino_swint_4scale_12ep": (12, 11, 10000.0, -0.5),
    "dino/dino_swinb_384_4scale_12ep": (12, 11, 10000.0, -0.5),
    "dino/dino_swinl_4scale_12ep": (12, 11, 10000.0, -0.5),
    "dino/dino_swinl_384_4scale_12ep": (12, 11, 10000.0, -0.5),
    "dino/dino_swinl_384_4scale_36ep": (36, 30, 10000.0, -0.5),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_settings_are_those_of_the_name(name):
    config = load_config(name)
    epochs, drop, temperature, offset = PUBLISHED[name]
    assert name.endswith(f"_{epochs}ep") and config.schedule.epochs == epochs
    assert list(config.schedule.milestones) == [drop]
    encoding = config.model.position_embedding
    assert (encoding.temperature, encoding.offset) == (temperature, offset)
    assert config.optimizer.norm_weight_decay == 0 and config.optimizer.lr == 1e-4
    assert config.model.criterion.class_weight == 1
    assert config.model.criterion.matcher.class_cost == 2
    assert config.train.output_dir == "output/" + name.split("/")[1]
    assert (config.model.keep_ratio == 0.3) is ("sparse" in name)
    assert config.model.backbone.get("window_size", 7) == (12 if "384" in name else 7)
