"""Released files of DETR and DETR-DC5."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .detr_keys import DETR
from .dino_formats import backbone_of
from .stored_config import StoredConfig
from .table_conversion import Recognised, ReleasedFormat

_FEEDFORWARD = "transformer.encoder.layers.0.linear1.weight"


def _recognised(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    if "backbone.1.row_embed.weight" in weights:
        raise ValueError("learned positions have no shipped run config to be stored with")
    name, words = backbone_of(weights, "backbone.0.", r"backbone\.0\.body\.layer3\.(\d+)\.")
    if name not in ("r50", "r101", "swint"):
        raise ValueError(f"no config of DETR is shipped for a {words}")
    arguments = content.get("args")
    given = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
    dilated, remarks = bool(given.get("dilation", False)), []
    if name == "swint":
        dilated = False
    elif "dilation" not in given:
        remarks.append(
            "the file does not say whether its backbone is dilated (DC5); it is taken for plain"
        )
    config = f"detr/detr_{name}{'_dc5' if dilated else ''}_500ep"
    title = f"DETR{'-DC5' if dilated else ''}; {words}"
    changes = (*_size_overrides(weights), "model.released_behaviour=True")
    return Recognised(title, StoredConfig(config, changes), tuple(remarks))


def _size_overrides(weights: Mapping[str, Tensor]) -> list[str]:
    """Changes of the config where layers, widths or queries are not the usual ones."""
    sizes = [
        ("query_selection.num_queries", len(weights["query_embed.weight"]), 100),
        ("encoder.feedforward_dim", len(weights[_FEEDFORWARD]), 2048),
    ]
    for part in ("encoder", "decoder"):
        pattern = re.compile(rf"transformer\.{part}\.layers\.(\d+)\.")
        layers = {match[1] for key in weights if (match := pattern.match(key))}
        sizes.append((f"{part}.num_layers", len(layers), 6))
    changes = [f"model.{key}={count}" for key, count, usual in sizes if count != usual]
    if "transformer.encoder.norm.weight" in weights:
        changes.append("model.encoder.pre_norm=True")
    return changes


DETR_FILES = ReleasedFormat(
    title="DETR",
    marks=("input_proj.weight", "query_embed.weight", "class_embed.weight", _FEEDFORWARD),
    keys=DETR,
    recognise=_recognised,
    torchvision_backbone=True,
    no_object_row=True,
    category_id_rows=True,
)
