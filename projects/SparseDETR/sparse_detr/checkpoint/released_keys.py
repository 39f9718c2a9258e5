"""Names of the transformer's weights in the released checkpoints and here.

The released files of Sparse DETR and Deformable DETR share one naming; backbones have their own
maps in :mod:`sparse_detr.backbone`.
"""

from __future__ import annotations

import re

# Released pattern -> name here. Heads appear several times in released files: the copies below
# ``transformer.encoder`` and ``transformer.decoder`` are aliases and have no entry.
_RULES: tuple[tuple[str, str], ...] = (
    (r"input_proj\.(\d+)\.([01])\.", r"feature_projection.projections.\1.\2."),
    (r"transformer\.level_embed$", "position_embedding.level_embed"),
    (r"transformer\.enc_mask_predictor\.layer1\.", "token_scoring.embed."),
    (r"transformer\.enc_mask_predictor\.layer2\.", "token_scoring.score."),
    (r"transformer\.enc_output\.", "proposal_projection.projection."),
    (r"transformer\.enc_output_norm\.", "proposal_projection.norm."),
    (r"transformer\.pos_trans\.", "query_selection.position_projection."),
    (r"transformer\.pos_trans_norm\.", "query_selection.position_norm."),
    (r"transformer\.reference_points\.", "query_selection.reference_points."),
    (r"query_embed\.", "query_selection.query_embed."),
    (r"transformer\.(encoder|decoder)\.layers\.(\d+)\.linear([12])\.", r"\1.layers.\2.ffn.linear\3."),
    (r"transformer\.(encoder|decoder)\.layers\.", r"\1.layers."),
    (r"(class_embed|bbox_embed)\.(\d+)\.", r"heads.stages.\2.\1."),
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
    for pattern, replacement in _RULES:
        name, count = re.subn("^" + pattern, replacement, released_key)
        if count:
            return name
    return None
