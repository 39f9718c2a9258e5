"""Files of PnP-DETR's released code. No weights of it were published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .detr_formats import MARKS, detr_sizes, released
from .file_traits import (
    TORCHVISION_NAMES,
    backbone_with_config,
    dilation,
    training_arguments,
)
from .pnp_detr_keys import pnp_detr_keys
from .table_conversion import Recognised, ReleasedFormat

_SAMPLER = "transformer.sampler."
_NO_WORD_ON_POSITIONS = (
    "the file does not say whether positions are in the keys of pooling; they are taken not to be"
)


def _recognised(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    name, words = backbone_with_config(weights, TORCHVISION_NAMES, "PnP-DETR", ("r50",))
    dilated, remarks = dilation(content)
    two_key_layers = f"{_SAMPLER}k_proj.2.weight" in weights
    last_key_layer = f"{_SAMPLER}k_proj{'.2' if two_key_layers else ''}.weight"
    between = weights.get(f"{_SAMPLER}score_pred_net.0.weight")
    given = training_arguments(content)
    if "pos_embed_kproj" not in given:
        remarks = (*remarks, _NO_WORD_ON_POSITIONS)
    values = {
        **detr_sizes(weights),
        "token_selection.num_pooled": len(weights[last_key_layer]),
        "token_selection.key_layers": 2 if two_key_layers else 1,
        "token_scoring.score_dim": None if between is None else len(between),
        "token_selection.position_in_keys": bool(given.get("pos_embed_kproj", False)),
    }
    stored = released(f"pnp_detr/pnp_detr_{name}{'_dc5' if dilated else ''}_500ep", values)
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
