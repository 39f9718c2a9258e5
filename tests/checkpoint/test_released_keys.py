"""Every weight of the released files has exactly one place here."""

import json

import pytest

from full_size import released_model
from sparse_detr.backbone.resnet_keys import released_to_detectron2
from sparse_detr.backbone.swin_keys import released_to_project
from sparse_detr.checkpoint.released_keys import from_released, is_alias, to_released

RELEASED = ("r50_sparse_0.1", "swint_sparse_0.1", "r50_deformable", "r50_deformable_bbr_topk")


@pytest.fixture(params=RELEASED)
def released(request, key_list):
    """Name of a released model and the description of its weights."""
    path = key_list(f"state_dict_{request.param}.json")
    return request.param, json.loads(path.read_text())


def aliases_of_shared_heads(entry):
    """Copies of one head for every decoder layer, where the released model shares it."""
    return {
        key for key, source in entry["alias"].items() if not is_alias(key) and not is_alias(source)
    }


def test_every_released_weight_maps_to_one_parameter_of_its_shape(released):
    name, entry = released
    here = {
        n: list(t.shape)
        for n, t in released_model(name).state_dict().items()
        if not n.startswith("backbone.")
    }
    hits = {}
    for key, shape in entry["keys"].items():
        if key.startswith("backbone.") or is_alias(key) or key in aliases_of_shared_heads(entry):
            continue
        target = from_released(key)
        assert target in here, key
        assert here[target] == shape, key
        hits.setdefault(target, []).append(key)
    assert set(hits) == set(here)
    assert all(len(keys) == 1 for keys in hits.values())


def test_names_here_lead_back_to_the_released_ones(released):
    _, entry = released
    for key in entry["keys"]:
        if not key.startswith("backbone.") and not is_alias(key):
            assert to_released(from_released(key)) == key


def test_every_released_backbone_weight_maps_to_one_tensor_of_its_shape(released):
    name, entry = released
    rename = released_to_project if name.startswith("swint") else released_to_detectron2
    here = {n: list(t.shape) for n, t in released_model(name).backbone.state_dict().items()}
    hits = {}
    for key, shape in entry["keys"].items():
        if not key.startswith("backbone.") or "relative_position_index" in key:
            continue
        target = rename(key)
        assert target in here and here[target] == shape, key
        hits.setdefault(target, []).append(key)
    left = {n for n in here if "relative_position_index" not in n} - set(hits)
    assert left == set()
    assert all(len(keys) == 1 for keys in hits.values())


def test_the_same_weights_are_frozen(released):
    name, entry = released
    frozen = {n for n, p in released_model(name).named_parameters() if not p.requires_grad}
    rename = released_to_project if name.startswith("swint") else released_to_detectron2
    assert frozen == {f"backbone.{rename(key)}" for key in entry["frozen"]}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("transformer.level_embed", "position_embedding.level_embed"),
        ("input_proj.3.1.bias", "feature_projection.projections.3.1.bias"),
        ("transformer.enc_mask_predictor.layer1.1.weight", "token_scoring.embed.1.weight"),
        ("transformer.enc_mask_predictor.layer2.4.bias", "token_scoring.score.4.bias"),
        ("transformer.encoder.layers.5.linear2.bias", "encoder.layers.5.ffn.linear2.bias"),
        (
            "transformer.decoder.layers.0.self_attn.in_proj_weight",
            "decoder.layers.0.self_attn.in_proj_weight",
        ),
        ("class_embed.11.weight", "heads.stages.11.class_embed.weight"),
        ("bbox_embed.6.layers.2.bias", "heads.stages.6.bbox_embed.layers.2.bias"),
        ("query_embed.weight", "query_selection.query_embed.weight"),
    ],
)
def test_names_are_translated_both_ways(key, name):
    assert from_released(key) == name
    assert to_released(name) == key


@pytest.mark.parametrize(
    "key",
    [
        "transformer.decoder.class_embed.0.weight",
        "transformer.encoder.bbox_embed.4.layers.0.weight",
    ],
)
def test_repeated_heads_have_no_place_of_their_own(key):
    assert is_alias(key) and from_released(key) is None


@pytest.mark.parametrize("key", ["backbone.0.body.conv1.weight", "total_params", "epoch", ""])
def test_names_of_other_things_map_to_nothing(key):
    assert from_released(key) is None
    assert not is_alias(key)


@pytest.mark.parametrize("name", ["backbone.stem.conv1.weight", "pixel_mean", ""])
def test_names_here_that_were_never_released_map_to_nothing(name):
    assert to_released(name) is None
