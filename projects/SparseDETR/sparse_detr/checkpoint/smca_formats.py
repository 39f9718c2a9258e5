"""Files of SMCA's released code, on one level and on four. No weights of it were published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .detr_formats import MARKS, size_overrides
from .dino_formats import backbone_of
from .key_table import KeyTable
from .smca_keys import SMCA, SMCA_MULTI_SCALE, SMCA_MULTI_SCALE_SEPARATE
from .stored_config import StoredConfig
from .table_conversion import Recognised, ReleasedFormat

_DECODER = "transformer.decoder.layers.0."
_ENCODER = "transformer.encoder.layers.0."
_CENTRES = f"{_DECODER}point1.layers.0.weight"
# Widths of the prior by how many numbers of them there are for each offset of two.
_FORMS = {0: "_fixed_scale", 1: "_isotropic", 2: "", 3: "_cross_term"}
_HEADS = 8


def _backbone(weights: Mapping[str, Tensor], shipped: tuple[str, ...]) -> tuple[str, str]:
    name, words = backbone_of(weights, "backbone.0.", r"backbone\.0\.body\.layer3\.(\d+)\.")
    if name not in shipped:
        raise ValueError(f"no config of it is shipped for a {words}")
    return name, words


def _stored(weights: Mapping[str, Tensor], config: str, changes: tuple[str, ...]) -> StoredConfig:
    sizes = size_overrides(weights, config)
    return StoredConfig(config, (*sizes, *changes, "model.released_behaviour=True"))


def _one_level(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    name, words = _backbone(weights, ("r50",))
    offsets = weights.get(f"{_DECODER}point2.weight")
    if offsets is None or len(offsets) != 2 * _HEADS:
        raise ValueError(f"its priors are not those of {_HEADS} heads, which the released ones are")
    scales = weights.get(f"{_DECODER}point3.weight")
    form = _FORMS.get(0 if scales is None else len(scales) // _HEADS)
    if form is None:
        raise ValueError("the widths of its priors are of no known form")
    config = f"smca/smca_{name}{form}_50ep"
    return Recognised(f"SMCA, single scale; {words}", _stored(weights, config, ()))


def _four_levels(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    separate = f"{_ENCODER}high_to_low_1.weight" in weights
    name, words = _backbone(weights, ("r50", "r101") if separate else ("r50",))
    kernel = weights[f"{_ENCODER}self_attn_8.weight"].shape[-1]
    config = f"smca/smca_multi_scale_{name}_50ep"
    if separate:
        larger = "_7x7" if name == "r101" or kernel == 7 else ""
        config = f"smca/smca_multi_scale_separate{larger}_{name}_50ep"
    usual = 5 if separate and "7x7" not in config else 7
    changes = () if kernel == usual else (f"model.encoder.kernel_size={kernel}",)
    if f"{_ENCODER}conv_1.weight" not in weights:
        changes = (*changes, "model.encoder.pointwise=False")
    return Recognised(f"SMCA, multi-scale; {words}", _stored(weights, config, changes))


def _multi_scale(keys: KeyTable, crossing: str) -> ReleasedFormat:
    return ReleasedFormat(
        title="SMCA, multi-scale",
        marks=("input_proj_512.weight", _CENTRES, f"{_ENCODER}{crossing}.weight"),
        keys=keys,
        recognise=_four_levels,
        torchvision_backbone=True,
        category_id_rows=True,
        spare_row=True,
    )


SMCA_FILES = ReleasedFormat(
    title="SMCA, single scale",
    marks=(*MARKS, _CENTRES),
    keys=SMCA,
    recognise=_one_level,
    torchvision_backbone=True,
    category_id_rows=True,
    spare_row=True,
)
SMCA_MULTI_SCALE_FILES = _multi_scale(SMCA_MULTI_SCALE, "high_to_low")
SMCA_MULTI_SCALE_SEPARATE_FILES = _multi_scale(SMCA_MULTI_SCALE_SEPARATE, "high_to_low_2")
