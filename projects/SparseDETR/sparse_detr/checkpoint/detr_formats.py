"""Released files of DETR and DETR-DC5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .detr_keys import DETR
from .file_traits import (
    TORCHVISION_NAMES,
    backbone_with_config,
    config_changes,
    dilation,
    layers_and_queries,
)
from .stored_config import StoredConfig
from .table_conversion import Recognised, ReleasedFormat

_FEEDFORWARD = "transformer.encoder.layers.0.linear1.weight"
MARKS = ("input_proj.weight", "query_embed.weight", "class_embed.weight", _FEEDFORWARD)
"""Keys of DETR and of its relatives on one level."""


def _recognised(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    if "backbone.1.row_embed.weight" in weights:
        raise ValueError("learned positions have no shipped run config to be stored with")
    shipped = ("r50", "r101", "swint")
    name, words = backbone_with_config(weights, TORCHVISION_NAMES, "DETR", shipped)
    dilated, remarks = (False, ()) if name == "swint" else dilation(content)
    config = f"detr/detr_{name}{'_dc5' if dilated else ''}_500ep"
    title = f"DETR{'-DC5' if dilated else ''}; {words}"
    pre_norm = "transformer.encoder.norm.weight" in weights
    values = {**detr_sizes(weights), "encoder.pre_norm": pre_norm}
    return Recognised(title, released(config, values), remarks)


def detr_sizes(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """Layers, queries and hidden channels of DETR or a relative, by their places below ``model``.

    Args:
        weights: Tensors by released name.
    """
    sizes = layers_and_queries(weights, "query_embed.weight")
    return {**sizes, "encoder.feedforward_dim": len(weights[_FEEDFORWARD])}


def released(config: str, values: Mapping[str, object]) -> StoredConfig:
    """A config with other values, as :func:`config_changes` takes them, and released behaviour."""
    return StoredConfig(config, config_changes(config, {**values, "released_behaviour": True}))


DETR_FILES = ReleasedFormat(
    title="DETR",
    marks=MARKS,
    keys=DETR,
    recognise=_recognised,
    torchvision_backbone=True,
    no_object_row=True,
    category_id_rows=True,
)
