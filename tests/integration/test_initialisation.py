"""Size, learning-rate groups and first values of the full-size models."""

import json
import math

import pytest
import torch
from detectron2.config import instantiate

from full_size import released_model
from sparse_detr.checkpoint.released_keys import from_released
from sparse_detr.config.loading import load_config
from sparse_detr.engine.optimizer import group_parameters

AUXILIARY_HEADS = 779_995
# Trainable parameters of the released models without auxiliary heads: the paper's table gives
# 40.9, 41.4, 39.8, 40.8, 40.3 and 41.3 million.
TRAINABLE = {
    "r50_sparse_0.1": 40_934_810,
    "swint_sparse_0.1": 41_396_158,
    "r50_deformable": 39_847_265,
    "r50_deformable_bbr_topk": 40_827_289,
}
IN_MILLIONS = {"swint_deformable": 40.309, "swint_deformable_bbr_topk": 41.289}


def trainable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_model_has_the_released_number_of_parameters_to_the_last_one(name):
    assert trainable(released_model(name, auxiliary=False)) == TRAINABLE[name]


@pytest.mark.parametrize("name", IN_MILLIONS)
def test_the_dense_swin_models_have_the_released_number_of_parameters(name):
    assert round(trainable(released_model(name)) / 1e6, 3) == IN_MILLIONS[name]


@pytest.mark.parametrize("name", ["r50_sparse_0.1", "swint_sparse_0.1"])
def test_the_auxiliary_heads_are_counted_apart(name):
    assert trainable(released_model(name)) == TRAINABLE[name] + AUXILIARY_HEADS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "r50_sparse_0.1",
            {"main": (335, 17.693), "backbone": (42, 23.233), "sampling": (24, 0.790)},
        ),
        (
            "swint_sparse_0.1",
            {"main": (335, 14.170), "backbone": (142, 27.216), "sampling": (24, 0.790)},
        ),
    ],
)
def test_the_learning_rate_groups_hold_the_released_parameters(name, expected):
    groups = group_parameters(released_model(name), lr=2e-4, lr_backbone=2e-5)
    assert {
        g.name: (len(g.parameters), round(g.element_count / 1e6, 3)) for g in groups
    } == expected
    assert {g.name: g.learning_rate for g in groups} == pytest.approx(
        {"main": 2e-4, "backbone": 2e-5, "sampling": 2e-5}
    )


def statistics(golden_file, name):
    """First values of the released model by name here: (released key, mean, std, min, max)."""
    stats = json.loads(golden_file(f"init_stats_{name}.json").read_text())
    found = {}
    for key, entry in stats.items():
        # Heads stand under their first alias: those of the encoder follow the other seven.
        if key.startswith("transformer.encoder.") and "_embed." in key:
            kind, index, rest = key.removeprefix("transformer.encoder.").split(".", 2)
            key = f"{kind}.{int(index) + 7}.{rest}"
        elif key.startswith("transformer.decoder.") and "_embed." in key:
            key = key.removeprefix("transformer.decoder.")
        here = from_released(key)
        if here is not None:
            found[here] = entry
    return found


def assert_same_distribution(name, values, entry):
    """Two samples of one distribution: moments within six standard errors, alike range."""
    assert list(values.shape) == entry["shape"], name
    if values.numel() == 1:
        assert abs(values.item()) < 1 / 8, name  # one draw says no more
        return
    mean, std = values.mean().item(), values.std(correction=0).item()
    low, high = values.min().item(), values.max().item()
    if entry["std"] == 0:
        assert (low, high) == pytest.approx((entry["min"], entry["max"]), abs=1e-6), name
        return
    if name.endswith("sampling_offsets.bias"):
        got = (mean, std, low, high)
        wanted = tuple(entry[k] for k in ("mean", "std", "min", "max"))
        assert got == pytest.approx(wanted, abs=0.01), name  # a pattern, not a draw
        return
    count, spread = values.numel(), entry["std"]
    assert abs(mean - entry["mean"]) < 6 * spread * math.sqrt(2 / count), name
    assert abs(std / spread - 1) < 6 / math.sqrt(count), name
    uniform = entry["max"] < 1.9 * spread
    slack = spread * (min(1.0, 30 / count) if uniform else 2.0)
    assert abs(low - entry["min"]) < slack and abs(high - entry["max"]) < slack, name


@pytest.fixture(scope="module")
def fresh_model():
    return released_model("r50_sparse_0.1", device="cpu")


def test_every_parameter_outside_the_backbone_starts_as_released(golden_file, fresh_model):
    stats = statistics(golden_file, "r50_sparse_0.1")
    parameters = {
        n: p.detach() for n, p in fresh_model.named_parameters() if not n.startswith("backbone.")
    }
    assert set(parameters) == set(stats)
    for name, values in parameters.items():
        assert_same_distribution(name, values, stats[name])


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("detr_r50_500ep", 41_302_368),
        ("detr_r50_dc5_500ep", 41_302_368),
        ("detr_r101_500ep", 60_242_272),
        ("detr_r101_dc5_500ep", 60_242_272),
    ],
)
def test_detr_has_the_released_number_of_parameters_to_the_last_one(name, count):
    config = load_config(f"detr/{name}", ["model.num_classes=91"])
    with torch.device("meta"):
        model = instantiate(config.model)
    assert trainable(model) == count
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert frozen == 222_400


@pytest.mark.parametrize(
    ("name", "num_classes", "count"),
    [
        ("smca/smca_r50_50ep", 92, 41_538_082),
        ("smca/smca_r50_fixed_scale_50ep", 92, 41_513_410),
        ("smca/smca_multi_scale_r50_50ep", 92, 40_763_514),
        ("smca/smca_multi_scale_no_pointwise_r50_50ep", 92, 39_974_010),
        ("smca/smca_multi_scale_separate_r50_50ep", 92, 39_977_338),
        ("smca/smca_multi_scale_separate_7x7_r50_50ep", 92, 41_070_714),
        ("smca/smca_multi_scale_separate_7x7_r101_50ep", 92, 60_010_618),
        ("smca/smca_multi_scale_reconstruction_r50_50ep", 92, 39_529_908),
        ("pnp_detr/pnp_detr_r50_500ep", 91, 41_441_919),
        ("pnp_detr/pnp_detr_r50_dc5_500ep", 91, 41_459_909),
    ],
)
def test_detrs_relatives_have_the_released_number_of_parameters(name, num_classes, count):
    config = load_config(name, [f"model.num_classes={num_classes}"])
    with torch.device("meta"):
        model = instantiate(config.model)
    assert trainable(model) == count


def test_smcas_priors_start_two_cells_wide_whatever_the_query():
    model = instantiate(load_config("models/smca").model)
    for layer in model.decoder.layers:
        assert (layer.prior.scale.weight == 0).all() and (layer.prior.scale.bias == 1).all()
    head = model.heads.decoder(0)
    assert head.class_embed.bias.tolist() == pytest.approx([-math.log(99)] * 80)
    assert head.last_box_layer.weight.abs().max() > 0


def test_detrs_heads_and_projection_start_as_linear_layers_do():
    model = instantiate(load_config("models/detr").model)
    convolution, head = model.feature_projection.projections[0][0], model.heads.decoder(0)
    for layer in (convolution, head.class_embed, head.last_box_layer):
        bound = 1 / math.sqrt(layer.weight[0].numel())
        for values in (layer.weight, layer.bias):
            assert 0.8 * bound < values.abs().max() <= bound
    assert model.query_selection.query_embed.weight.std().item() == pytest.approx(1, abs=0.05)
    for name, values in model.named_parameters():
        if name.startswith(("encoder", "decoder")) and values.dim() > 1:
            bound = math.sqrt(6 / sum(values.shape))
            assert 0.95 * bound < values.abs().max() <= bound, name


def test_the_layers_do_not_start_as_copies_of_each_other(fresh_model):
    for stack in (fresh_model.encoder.layers, fresh_model.decoder.layers):
        first, second = stack[0].ffn.linear1.weight, stack[1].ffn.linear1.weight
        assert not first.equal(second)
