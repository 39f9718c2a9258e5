"""Released files of DETR and DETR-DC5."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from ..config.loading import load_config
from .detr_keys import DETR
from .dino_formats import backbone_of
from .stored_config import StoredConfig
from .table_conversion import Recognised, ReleasedFormat

_FEEDFORWARD = "transformer.encoder.layers.0.linear1.weight"
MARKS = ("input_proj.weight", "query_embed.weight", "class_embed.weight", _FEEDFORWARD)
"""Keys of DETR and of its relatives on one level."""


def _recognised(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    if "backbone.1.row_embed.weight" in weights:
        raise ValueError("learned positions have no shipped run config to be stored with")
    name, words = backbone_of(weights, "backbone.0.", r"backbone\.0\.body\.layer3\.(\d+)\.")
    if name not in ("r50", "r101", "swint"):
        raise ValueError(f"no config of DETR is shipped for a {words}")
    dilated, remarks = (False, ()) if name == "swint" else dilation(content)
    config = f"detr/detr_{name}{'_dc5' if dilated else ''}_500ep"
    title = f"DETR{'-DC5' if dilated else ''}; {words}"
    changes = size_overrides(weights, config)
    if "transformer.encoder.norm.weight" in weights:
        changes.append("model.encoder.pre_norm=True")
    stored = StoredConfig(config, (*changes, "model.released_behaviour=True"))
    return Recognised(title, stored, remarks)


def size_overrides(weights: Mapping[str, Tensor], config: str) -> list[str]:
    """Changes of a config where layers, widths or queries of a file are not those it has.

    Args:
        weights: Tensors by released name.
        config: Name of the config.
    """
    sizes = {
        "query_selection.num_queries": len(weights["query_embed.weight"]),
        "encoder.feedforward_dim": len(weights[_FEEDFORWARD]),
    }
    for part in ("encoder", "decoder"):
        pattern = re.compile(rf"transformer\.{part}\.layers\.(\d+)\.")
        layers = {match[1] for key in weights if (match := pattern.match(key))}
        sizes[f"{part}.num_layers"] = len(layers)
    model = load_config(config).model
    return [
        f"model.{key}={count}"
        for key, count in sizes.items()
        if OmegaConf.select(model, key) != count
    ]


def dilation(content: Mapping[str, Any]) -> tuple[bool, tuple[str, ...]]:
    """Whether the backbone of a file is dilated (DC5), and a remark where it does not say so."""
    arguments = content.get("args")
    given = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
    if "dilation" in given:
        return bool(given["dilation"]), ()
    remark = "the file does not say whether its backbone is dilated (DC5); it is taken for plain"
    return False, (remark,)


DETR_FILES = ReleasedFormat(
    title="DETR",
    marks=MARKS,
    keys=DETR,
    recognise=_recognised,
    torchvision_backbone=True,
    no_object_row=True,
    category_id_rows=True,
)
