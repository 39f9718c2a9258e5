"""Names of the weights in SMCA's released code and here; see :mod:`.detr_keys`."""

from __future__ import annotations

from .detr_keys import DETR
from .key_table import KeyTable

_DECODER = KeyTable(
    (
        ("transformer.decoder.layers.{i}.norm4.", "decoder.layers.{i}.prior.norm."),
        ("transformer.decoder.layers.{i}.point2.", "decoder.layers.{i}.prior.offset."),
        ("transformer.decoder.layers.{i}.point3.", "decoder.layers.{i}.prior.scale."),
        ("transformer.decoder.layers.{i}.point4.", "decoder.layers.{i}.prior.level_weight."),
        # Only the first layer has it.
        ("transformer.decoder.layers.0.point1.", "decoder.initial_centres."),
        ("transformer.level_embed", "position_embedding.level_embed"),
    )
)
SMCA = _DECODER + DETR
"""SMCA on one level, in all forms of its prior."""

_PROJECTIONS = KeyTable(
    (
        ("input_proj_512.", "feature_projection.projections.0.0."),
        ("input_proj_1024.", "feature_projection.projections.1.0."),
        ("input_proj_2048.", "feature_projection.projections.2.0."),
        ("input_proj_2048_3.", "feature_projection.projections.3.0."),
    )
)
_MIXING = KeyTable(
    (
        ("transformer.conv.", "encoder.halve."),
        ("transformer.encoder.layers.{i}.conv_1.", "encoder.layers.{i}.self_attn.enter."),
        ("transformer.encoder.layers.{i}.conv_2.", "encoder.layers.{i}.self_attn.leave."),
        ("transformer.encoder.layers.{i}.self_attn_8.", "encoder.layers.{i}.self_attn.within.0."),
        ("transformer.encoder.layers.{i}.self_attn_16.", "encoder.layers.{i}.self_attn.within.1."),
        ("transformer.encoder.layers.{i}.self_attn_32.", "encoder.layers.{i}.self_attn.within.2."),
        ("transformer.encoder.layers.{i}.self_attn_64.", "encoder.layers.{i}.self_attn.within.3."),
    )
)
_SHARED = KeyTable(
    (
        ("transformer.encoder.layers.{i}.high_to_low.", "encoder.layers.{i}.self_attn.down.0."),
        ("transformer.encoder.layers.{i}.low_to_high.", "encoder.layers.{i}.self_attn.up.0."),
    )
)
_SEPARATE = KeyTable(
    (
        (
            "transformer.encoder.layers.{i}.high_to_low_{j+1}.",
            "encoder.layers.{i}.self_attn.down.{j}.",
        ),
        (
            "transformer.encoder.layers.{i}.low_to_high_{j+1}.",
            "encoder.layers.{i}.self_attn.up.{j}.",
        ),
    )
)
SMCA_MULTI_SCALE = _PROJECTIONS + _MIXING + _SHARED + SMCA
"""SMCA on four levels whose neighbours all share their crossings."""

SMCA_MULTI_SCALE_SEPARATE = _PROJECTIONS + _MIXING + _SEPARATE + SMCA
"""SMCA on four levels whose neighbours have crossings of their own."""
