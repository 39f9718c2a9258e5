"""Names of the transformer's weights in the released checkpoints and here.

The released files of Sparse DETR and Deformable DETR share one naming; backbones have their own
maps in :mod:`sparse_detr.backbone`.
"""

from __future__ import annotations

import re

# (pattern of the released name, name here, pattern of the name here, released name). Heads appear
# several times in released files: the copies below ``transformer.encoder`` and
# ``transformer.decoder`` are aliases and have no entry.
_LAYERS = r"(encoder|decoder)\.layers\.(\d+)\."
_RULES: tuple[tuple[str, str, str, str], ...] = (
    (
        r"input_proj\.(\d+)\.([01])\.",
        r"feature_projection.projections.\1.\2.",
        r"feature_projection\.projections\.(\d+)\.([01])\.",
        r"input_proj.\1.\2.",
    ),
    (
        rf"transformer\.{_LAYERS}linear([12])\.",
        r"\1.layers.\2.ffn.linear\3.",
        rf"{_LAYERS}ffn\.linear([12])\.",
        r"transformer.\1.layers.\2.linear\3.",
    ),
    (
        rf"transformer\.{_LAYERS}",
        r"\1.layers.\2.",
        _LAYERS,
        r"transformer.\1.layers.\2.",
    ),
    (
        r"(class_embed|bbox_embed)\.(\d+)\.",
        r"heads.stages.\2.\1.",
        r"heads\.stages\.(\d+)\.(class_embed|bbox_embed)\.",
        r"\2.\1.",
    ),
    *(
        (re.escape(released), here, re.escape(here), released)
        for released, here in (
            ("transformer.level_embed", "position_embedding.level_embed"),
            ("transformer.enc_mask_predictor.layer1.", "token_scoring.embed."),
            ("transformer.enc_mask_predictor.layer2.", "token_scoring.score."),
            ("transformer.enc_output.", "proposal_projection.projection."),
            ("transformer.enc_output_norm.", "proposal_projection.norm."),
            ("transformer.pos_trans.", "query_selection.position_projection."),
            ("transformer.pos_trans_norm.", "query_selection.position_norm."),
            ("transformer.reference_points.", "query_selection.reference_points."),
            ("query_embed.", "query_selection.query_embed."),
        )
    ),
)
_ALIAS = re.compile(r"transformer\.(encoder|decoder)\.(class_embed|bbox_embed)\.")


def is_alias(released_key: str) -> bool:
    """Whether a released key repeats a head that another key holds."""
    return _ALIAS.match(released_key) is not None


def from_released(released_key: str) -> str | None:
    """The name here of a released transformer weight.

    Args:
        released_key: For example ``transformer.encoder.layers.0.linear1.weight``.

    Returns:
        For example ``encoder.layers.0.ffn.linear1.weight``; None for aliases, for the backbone and
        for keys that no rule knows.
    """
    if is_alias(released_key):
        return None
    for pattern, replacement, _, _ in _RULES:
        name, count = re.subn("^" + pattern, replacement, released_key)
        if count:
            return name
    return None


def to_released(name: str) -> str | None:
    """The released name of a transformer weight.

    Args:
        name: For example ``heads.stages.6.class_embed.bias``.

    Returns:
        For example ``class_embed.6.bias``; None for the backbone and for names that no rule knows.
    """
    for _, _, pattern, replacement in _RULES:
        key, count = re.subn("^" + pattern, replacement, name)
        if count:
            return key
    return None
