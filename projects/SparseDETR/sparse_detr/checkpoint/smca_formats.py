"""Files of SMCA's released code, on one level and on four. No weights of it were published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .detr_formats import MARKS, detr_sizes, released
from .file_traits import TORCHVISION_NAMES, backbone_with_config
from .key_table import KeyTable
from .smca_keys import SMCA, SMCA_MULTI_SCALE, SMCA_MULTI_SCALE_SEPARATE
from .table_conversion import Recognised, ReleasedFormat

_DECODER = "transformer.decoder.layers.0."
_ENCODER = "transformer.encoder.layers.0."
_CENTRES = f"{_DECODER}point1.layers.0.weight"
# Widths of the prior by how many numbers of them there are for each offset of two.
_FORMS = {0: "_fixed_scale", 1: "_isotropic", 2: "", 3: "_cross_term"}
_HEADS = 8


def _one_level(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    name, words = backbone_with_config(weights, TORCHVISION_NAMES, "SMCA", ("r50",))
    offsets = weights.get(f"{_DECODER}point2.weight")
    if offsets is None or len(offsets) != 2 * _HEADS:
        raise ValueError(f"its priors are not those of {_HEADS} heads, which the released ones are")
    scales = weights.get(f"{_DECODER}point3.weight")
    form = _FORMS.get(0 if scales is None else len(scales) // _HEADS)
    if form is None:
        raise ValueError("the widths of its priors are of no known form")
    stored = released(f"smca/smca_{name}{form}_50ep", detr_sizes(weights))
    return Recognised(f"SMCA, single scale; {words}", stored)


def _four_levels(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    separate = f"{_ENCODER}high_to_low_1.weight" in weights
    shipped = ("r50", "r101") if separate else ("r50",)
    name, words = backbone_with_config(weights, TORCHVISION_NAMES, "multi-scale SMCA", shipped)
    kernel = weights[f"{_ENCODER}self_attn_8.weight"].shape[-1]
    form = ""
    if separate:
        form = "_separate_7x7" if name == "r101" or kernel == 7 else "_separate"
    values = {
        **detr_sizes(weights),
        "encoder.kernel_size": kernel,
        "encoder.pointwise": f"{_ENCODER}conv_1.weight" in weights,
    }
    stored = released(f"smca/smca_multi_scale{form}_{name}_50ep", values)
    return Recognised(f"SMCA, multi-scale; {words}", stored)


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
