"""Files of DINO: those of detrex, and those of its authors."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from .dino_keys import DETREX, ORIGINAL
from .file_traits import (
    DETECTRON2_NAMES,
    TORCHVISION_NAMES,
    backbone_of,
    config_changes,
    layers_and_queries,
)
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


def copied_head(key: str, keys: Collection[str]) -> str | None:
    """The head that a key below the decoder repeats."""
    match = _COPIES.fullmatch(key)
    return match[1] if match else None


def copies_of_head(key: str, keys: Collection[str]) -> tuple[str, ...]:
    """The keys below the decoder that repeat a head."""
    is_head = key.startswith(("class_embed.", "bbox_embed."))
    return (f"transformer.decoder.{key}",) if is_head else ()


def layer_overrides(weights: Mapping[str, Tensor], config: str) -> tuple[str, ...]:
    """Changes of a config where numbers of layers or queries are not those it has."""
    return config_changes(config, layers_and_queries(weights, "transformer.tgt_embed.weight"))


def encoding_overrides(
    backbone: str, content: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Changes for the position encoding that a training of detrex used, and remarks.

    Args:
        backbone: Of :func:`~.file_traits.backbone_of`.
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


def _detrex(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    name, words = backbone_of(weights, DETECTRON2_NAMES)
    encoding, remarks = encoding_overrides(name, content)
    config = _stored(weights, name, encoding)
    return Recognised(f"DINO of detrex; {words}", config, remarks)


def _original(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    # The same in both: the authors' ResNets have torchvision's names.
    name, words = backbone_of(weights, TORCHVISION_NAMES)
    config = _stored(weights, name, _LATER_SCHEDULES)
    return Recognised(f"DINO of its authors; {words}", config)


def _stored(
    weights: Mapping[str, Tensor], backbone: str, encoding: tuple[str, ...]
) -> StoredConfig:
    config = f"dino/dino_{backbone}_4scale_12ep"
    changes = (*layer_overrides(weights, config), *encoding, "model.released_behaviour=True")
    return StoredConfig(config, changes)


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
