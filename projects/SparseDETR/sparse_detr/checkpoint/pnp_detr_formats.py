"""Files of PnP-DETR's released code. No weights of it were published."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..config.loading import load_config
from .detr_formats import MARKS, dilation, size_overrides
from .dino_formats import backbone_of
from .pnp_detr_keys import pnp_detr_keys
from .stored_config import StoredConfig
from .table_conversion import Recognised, ReleasedFormat

_SAMPLER = "transformer.sampler."
_SCORES = f"{_SAMPLER}score_pred_net."
_NO_WORD_ON_POSITIONS = (
    "the file does not say whether positions are in the keys of pooling; they are taken not to be"
)


def _recognised(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    name, words = backbone_of(weights, "backbone.0.", r"backbone\.0\.body\.layer3\.(\d+)\.")
    if name != "r50":
        raise ValueError(f"no config of PnP-DETR is shipped for a {words}")
    dilated, remarks = dilation(content)
    config = f"pnp_detr/pnp_detr_{name}{'_dc5' if dilated else ''}_500ep"
    changes = size_overrides(weights, config)
    two_layers = f"{_SAMPLER}k_proj.2.weight" in weights
    pooled = weights[f"{_SAMPLER}k_proj.2.weight" if two_layers else f"{_SAMPLER}k_proj.weight"]
    if len(pooled) != load_config(config).model.token_selection.num_pooled:
        changes.append(f"model.token_selection.num_pooled={len(pooled)}")
    if two_layers:
        changes.append("model.token_selection.key_layers=2")
    between = weights.get(f"{_SCORES}0.weight")
    if between is None:
        changes.append("model.token_scoring.score_dim=null")
    elif len(between) != len(weights["query_embed.weight"][0]):
        changes.append(f"model.token_scoring.score_dim={len(between)}")
    arguments = content.get("args")
    given = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
    if "pos_embed_kproj" not in given:
        remarks = (*remarks, _NO_WORD_ON_POSITIONS)
    elif given["pos_embed_kproj"]:
        changes.append("model.token_selection.position_in_keys=True")
    stored = StoredConfig(config, (*changes, "model.released_behaviour=True"))
    return Recognised(f"PnP-DETR{'-DC5' if dilated else ''}; {words}", stored, remarks)


def _format(key_layers: int, score_layers: int) -> ReleasedFormat:
    key = "k_proj" if key_layers == 1 else "k_proj.2"
    score = "score_pred_net" if score_layers == 1 else "score_pred_net.2"
    return ReleasedFormat(
        title="PnP-DETR",
        marks=(*MARKS, f"{_SAMPLER}{key}.weight", f"{_SAMPLER}{score}.weight"),
        keys=pnp_detr_keys(key_layers, score_layers),
        recognise=_recognised,
        torchvision_backbone=True,
        no_object_row=True,
        category_id_rows=True,
        pointwise="token_scoring.network.",
    )


PNP_DETR_FORMATS = tuple(_format(keys, scores) for keys in (1, 2) for scores in (2, 1))
"""By the layers of its keys and of its scores."""
