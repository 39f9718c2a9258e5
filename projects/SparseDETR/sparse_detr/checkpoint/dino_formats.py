"""Files of DINO: those of detrex, and those of its authors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from .dino_keys import DETREX, ORIGINAL
from .stored_config import StoredConfig
from .table_conversion import Recognised, ReleasedFormat

_LABELS = "query_selection.denoising.label_embedding.weight"
_COPIES = re.compile(r"transformer\.decoder\.((?:class|bbox)_embed\.\d+\..+)")
_LATER_SCHEDULES = (
    "model.position_embedding.temperature=20.0",
    "model.position_embedding.offset=0.0",
)
# After so many iterations a training of 24 epochs is not over, and one of 12 is.
_OF_12_EPOCHS = 100_000
_SWIN = {96: "swint", 128: "swinb_384", 192: "swinl"}


def copied_head(key: str, keys: Collection[str]) -> str | None:
    """The head that a key below the decoder repeats."""
    match = _COPIES.fullmatch(key)
    return match[1] if match else None


def copies_of_head(key: str, keys: Collection[str]) -> tuple[str, ...]:
    """The keys below the decoder that repeat a head."""
    is_head = key.startswith(("class_embed.", "bbox_embed."))
    return (f"transformer.decoder.{key}",) if is_head else ()


def backbone_of(weights: Mapping[str, Tensor], prefix: str, blocks: str) -> tuple[str, str]:
    """Name of the backbone in config names, and in words.

    Args:
        weights: Tensors by released name.
        prefix: Of a Swin backbone's names.
        blocks: Pattern of the names of a ResNet's third stage, the number of the block in a group.

    Raises:
        ValueError: It is none of those that configs are shipped for.
    """
    table = f"{prefix}layers.0.blocks.0.attn.relative_position_bias_table"
    if table in weights:
        width = len(weights[f"{prefix}patch_embed.proj.weight"])
        window = (int(len(weights[table]) ** 0.5) + 1) // 2
        name = _SWIN.get(width)
        if name == "swinl" and window == 12:
            name = "swinl_384"
        known = {"swint": 7, "swinb_384": 12, "swinl": 7, "swinl_384": 12}
        if name is None or known[name] != window:
            raise ValueError(f"a Swin of width {width} with windows of {window} is not known")
        return name, f"Swin of width {width} with windows of {window}"
    count = len(_numbers(weights, blocks))
    depth = {6: 50, 23: 101}.get(count)
    if depth is None:
        raise ValueError(f"the ResNet has {count} blocks in its third stage, expected 6 or 23")
    return f"r{depth}", f"ResNet-{depth}"


def layer_overrides(weights: Mapping[str, Tensor]) -> list[str]:
    """Changes of the config where numbers of layers or queries are not the usual ones."""
    changes = []
    for part in ("encoder", "decoder"):
        count = len(_numbers(weights, rf"transformer\.{part}\.layers\.(\d+)\."))
        if count != 6:
            changes.append(f"model.{part}.num_layers={count}")
    queries = len(weights["transformer.tgt_embed.weight"])
    if queries != 900:
        changes.append(f"model.query_selection.num_queries={queries}")
    return changes


def encoding_overrides(
    backbone: str, content: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Changes for the position encoding that a training of detrex used, and remarks.

    Args:
        backbone: Of :func:`backbone_of`.
        content: Other entries of the checkpoint; ``iteration`` tells the schedule.
    """
    if not backbone.startswith("r"):
        return (), ()
    iteration = content.get("iteration")
    if isinstance(iteration, int):
        return (_LATER_SCHEDULES if iteration > _OF_12_EPOCHS else ()), ()
    remark = (
        "the file does not say its schedule; the position encoding of 12 epochs is stored, those "
        f"of 24 and 36 epochs need {' '.join(_LATER_SCHEDULES)}"
    )
    return (), (remark,)


def _numbers(keys: Iterable[str], pattern: str) -> set[int]:
    return {int(match[1]) for key in keys if (match := re.match(pattern, key))}


def _detrex(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    name, words = backbone_of(weights, "backbone.", r"backbone\.res4\.(\d+)\.")
    encoding, remarks = encoding_overrides(name, content)
    changes = (*layer_overrides(weights), *encoding, "model.released_behaviour=True")
    config = StoredConfig(f"dino/dino_{name}_4scale_12ep", changes)
    return Recognised(f"DINO of detrex; {words}", config, remarks)


def _original(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    # The same in both: the authors' ResNets have torchvision's names.
    name, words = backbone_of(weights, "backbone.0.", r"backbone\.0\.body\.layer3\.(\d+)\.")
    changes = (*layer_overrides(weights), *_LATER_SCHEDULES, "model.released_behaviour=True")
    config = StoredConfig(f"dino/dino_{name}_4scale_12ep", changes)
    return Recognised(f"DINO of its authors; {words}", config)


DETREX_DINO = ReleasedFormat(
    title="DINO of detrex",
    marks=("transformer.level_embeds", "transformer.tgt_embed.weight", "label_enc.weight"),
    keys=DETREX,
    recognise=_detrex,
    copied=copied_head,
    copies=copies_of_head,
    label_rows=(_LABELS,),
)

ORIGINAL_DINO = ReleasedFormat(
    title="DINO of its authors",
    marks=("transformer.enc_out_class_embed.weight", "transformer.tgt_embed.weight"),
    keys=ORIGINAL,
    recognise=_original,
    copied=copied_head,
    copies=copies_of_head,
    torchvision_backbone=True,
    label_rows=(_LABELS,),
)
