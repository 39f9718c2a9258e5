"""Released files of Focus-DETR: their names, their copies, and what is told from them."""

import pytest
import torch
from detectron2.config import instantiate

from sparse_detr.checkpoint.conversion_errors import ConversionError
from sparse_detr.checkpoint.focus_formats import FOCUS_DETR
from sparse_detr.checkpoint.focus_keys import FOCUS
from sparse_detr.checkpoint.released_formats import format_for, format_of
from sparse_detr.checkpoint.table_conversion import from_table, to_table
from sparse_detr.config.loading import load_config


@pytest.fixture(scope="module")
def weights():
    """Of a model of full size, every tensor with a value of its own."""
    model = load_config("focus_detr/focus_detr_r50_12ep").model
    with torch.device("meta"):
        state = instantiate(model).state_dict()
    return {
        name: torch.full(tensor.shape, float(index)).to(tensor.dtype)
        for index, (name, tensor) in enumerate(state.items())
    }


@pytest.fixture(scope="module")
def released(weights):
    return to_table(FOCUS_DETR, weights, None).weights


def test_a_file_has_the_released_number_of_keys(released):
    backbone = [key for key in released if key.startswith("backbone.")]
    assert (len(released), len(backbone)) == (705, 265)
    assert "backbone.res2.0.shortcut.norm.running_mean" in backbone


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("transformer.alpha", (3,)),
        ("transformer.level_embeds", (4, 256)),
        ("transformer.enc_mask_predictor.layer1.1.weight", (256, 256)),
        ("transformer.enc_mask_predictor.layer2.4.bias", (1,)),
        ("transformer.encoder.layers.5.attentions.0.attn.in_proj_weight", (768, 256)),
        ("transformer.encoder.layers.0.norm2.weight", (256,)),
        ("transformer.encoder.layers.0.attentions.1.sampling_offsets.weight", (256, 256)),
        ("transformer.encoder.layers.0.ffns.0.layers.1.weight", (256, 2048)),
        ("transformer.decoder.ref_point_head.layers.0.weight", (256, 512)),
        ("neck.extra_convs.0.conv.weight", (256, 2048, 3, 3)),
        ("enhance_MCSP_layerlist.5.weight", (80, 256)),
        ("transformer.encoder.enhance_MCSP.0.bias", (80,)),
        ("label_enc.weight", (80, 256)),
    ],
)
def test_keys_and_shapes_are_the_released_ones(released, key, shape):
    assert released[key].shape == shape


def test_there_and_back_gives_the_same_weights_and_the_config(weights, released):
    back = from_table(FOCUS_DETR, released, {"iteration": 89_999})
    assert back.weights.keys() == weights.keys()
    assert all(torch.equal(back.weights[name], weights[name]) for name in weights)
    assert back.config.name == "focus_detr/focus_detr_r50_12ep"
    assert back.config.overrides == ("model.released_behaviour=True",)


def test_the_file_is_told_from_one_of_dino_both_ways(weights, released):
    assert format_of(released.keys()) is FOCUS_DETR
    assert format_for(weights.keys()) is FOCUS_DETR
    assert format_of(released.keys() - {"transformer.alpha"}) is not FOCUS_DETR


def test_longer_schedules_get_their_position_encoding(released):
    back = from_table(FOCUS_DETR, released, {"iteration": 269_999})
    assert "model.position_embedding.temperature=20.0" in back.config.overrides
    unknown = from_table(FOCUS_DETR, released, {})
    assert "does not say its schedule" in unknown.report.remarks[0]


@pytest.mark.parametrize(
    "key", ["enhance_MCSP_layerlist.2.bias", "transformer.decoder.class_embed.6.bias"]
)
def test_a_copy_that_differs_is_refused(released, key):
    damaged = {**released, key: released[key] + 1}
    with pytest.raises(ConversionError, match=r"has to repeat class_embed\.6\.bias"):
        from_table(FOCUS_DETR, damaged, {})


def test_a_missing_weight_is_named_as_the_file_would(released):
    name = "transformer.encoder.layers.3.norm2.bias"
    damaged = {key: tensor for key, tensor in released.items() if key != name}
    with pytest.raises(ConversionError, match=r"layers\.3\.norm2\.bias"):
        from_table(FOCUS_DETR, damaged, {})


def test_names_of_the_table_lead_back_to_themselves(weights):
    for name in weights:
        if not name.startswith("backbone."):
            assert FOCUS.here(FOCUS.released(name)) == name
