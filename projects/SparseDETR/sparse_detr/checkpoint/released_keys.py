"""Names of the transformer's weights in the released checkpoints and here.

The released files of Sparse DETR and Deformable DETR share one naming; backbones have their own
maps in :mod:`sparse_detr.backbone`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

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
_ALIAS = re.compile(r"transformer\.(encoder|decoder)\.((?:class_embed|bbox_embed)\.)(\d+)(\..+)")
_PARTS = ("encoder", "decoder")
ALIAS_OF_DECODER_BOXES = "transformer.decoder.bbox_embed."


def is_alias(released_key: str) -> bool:
    """Whether a released key repeats a head that another key holds."""
    return _ALIAS.match(released_key) is not None


def alias_source(released_key: str, first_encoder_head: int) -> str | None:
    """The key that holds the head which an alias repeats.

    Args:
        released_key: For example ``transformer.encoder.class_embed.0.bias``.
        first_encoder_head: Number of the first head that belongs to the encoder.

    Returns:
        For example ``class_embed.7.bias``; None for keys that are no alias.
    """
    match = _ALIAS.fullmatch(released_key)
    if match is None:
        return None
    part, kind, number, rest = match.groups()
    offset = first_encoder_head if part == "encoder" else 0
    return f"{kind}{int(number) + offset}{rest}"


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


def alias_keys(released: Iterable[str], refines_boxes: bool) -> dict[str, str]:
    """The keys under which a released file repeats heads.

    Args:
        released: Keys of a detector without its copies.
        refines_boxes: Whether decoder layers refine boxes; two-stage detectors always do.

    Returns:
        Key that is held by this one, by the key that repeats it.
    """
    keys = list(released)
    layers = {part: _count(keys, rf"transformer\.{part}\.layers\.(\d+)\.") for part in _PARTS}
    two_stage = "transformer.enc_output.weight" in keys
    stages = _count(keys, r"class_embed\.(\d+)\.")
    copies: dict[str, str] = {}
    if stages == 1:
        # One head for all: the released list of heads names it once for every stage.
        for copy in range(1, layers["decoder"] + int(two_stage)):
            for key in [k for k in keys if k.startswith(("class_embed.0.", "bbox_embed.0."))]:
                copies[key.replace(".0.", f".{copy}.", 1)] = key
    first_encoder_head = layers["decoder"] + int(two_stage)
    heads = [k for k in [*keys, *copies] if k.startswith(("class_embed.", "bbox_embed."))]
    for key in heads:
        kind, number, leaf = key.split(".", 2)
        source = copies.get(key, key)
        if two_stage or (refines_boxes and stages > 1 and kind == "bbox_embed"):
            copies[f"transformer.decoder.{key}"] = source
        if int(number) >= first_encoder_head:
            inside = int(number) - first_encoder_head
            copies[f"transformer.encoder.{kind}.{inside}.{leaf}"] = source
    return copies


def _count(keys: Iterable[str], pattern: str) -> int:
    return len({match[1] for key in keys if (match := re.match(pattern, key))})


def is_released(keys: Iterable[str]) -> bool:
    """Whether names are those of a detector in the released layout."""
    names = list(keys)
    return any(name.startswith("transformer.") for name in names) and any(
        name.startswith("class_embed.") for name in names
    )
