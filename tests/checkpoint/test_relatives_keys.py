"""Names of the weights of DETR's relatives: every parameter has one, and it leads back."""

import pytest
import torch
from detectron2.config import instantiate

from sparse_detr.checkpoint.pnp_detr_keys import pnp_detr_keys
from sparse_detr.checkpoint.smca_keys import SMCA, SMCA_MULTI_SCALE, SMCA_MULTI_SCALE_SEPARATE
from sparse_detr.config.loading import load_config

CASES = [
    ("smca", (), SMCA),
    ("smca_multi_scale", (), SMCA_MULTI_SCALE),
    ("smca_multi_scale_separate", (), SMCA_MULTI_SCALE_SEPARATE),
    ("pnp_detr", (), pnp_detr_keys()),
    ("pnp_detr", ("model.token_scoring.score_dim=null",), pnp_detr_keys(score_layers=1)),
    ("pnp_detr", ("model.token_selection.key_layers=2",), pnp_detr_keys(key_layers=2)),
]


@pytest.mark.parametrize(("name", "overrides", "table"), CASES)
def test_every_parameter_has_a_released_name_that_leads_back(name, overrides, table):
    with torch.device("meta"):
        model = instantiate(load_config(f"models/{name}", list(overrides)).model)
    names = [n for n, _ in model.named_parameters() if not n.startswith("backbone.")]
    released = [table.released(n) for n in names]
    assert None not in released
    assert len(set(released)) == len(names)
    assert [table.here(key) for key in released] == names


@pytest.mark.parametrize(
    ("table", "key", "name"),
    [
        (SMCA, "transformer.decoder.layers.3.norm4.bias", "decoder.layers.3.prior.norm.bias"),
        (SMCA, "transformer.decoder.layers.3.norm1.bias", "decoder.layers.3.norm2.bias"),
        (
            SMCA,
            "transformer.decoder.layers.0.point1.layers.2.weight",
            "decoder.initial_centres.layers.2.weight",
        ),
        (
            SMCA_MULTI_SCALE_SEPARATE,
            "transformer.encoder.layers.1.low_to_high_3.weight",
            "encoder.layers.1.self_attn.up.2.weight",
        ),
        (
            pnp_detr_keys(),
            "transformer.sampler.score_pred_net.2.weight",
            "token_scoring.network.layers.1.weight",
        ),
    ],
)
def test_released_names_are_those_of_the_code(table, key, name):
    assert table.here(key) == name
    assert table.released(name) == key
