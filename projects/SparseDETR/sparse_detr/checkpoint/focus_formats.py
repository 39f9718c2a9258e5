"""Released files of Focus-DETR, which are detrex's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from ..token_selection import Cascade
from ..token_selection.cascade import RELEASED_FACTORS
from .dino_formats import copied_head, copies_of_head, encoding_overrides, layer_overrides
from .file_traits import DETECTRON2_NAMES, backbone_with_config, layer_count, numbers
from .focus_keys import FOCUS
from .stored_config import StoredConfig
from .table_conversion import Recognised, ReleasedFormat

# The class head of the first stage stands there once for each encoder layer, in two lists.
_CATEGORY_LISTS = ("enhance_MCSP_layerlist", "transformer.encoder.enhance_MCSP")
_CATEGORY_COPY = re.compile(
    r"(?:enhance_MCSP_layerlist|transformer\.encoder\.enhance_MCSP)\.\d+\.(.+)"
)
_CONFIGS = {
    "r50": "focus_detr_r50_12ep",
    "r101": "focus_detr_r101_12ep",
    "swint": "focus_detr_swint_12ep",
    "swinb_384": "focus_detr_swinb_384_36ep",
    "swinl_384": "focus_detr_swinl_384_36ep",
}


def _copied(key: str, keys: Collection[str]) -> str | None:
    """The head that a key repeats; the encoder's category heads repeat the first stage's."""
    match = _CATEGORY_COPY.fullmatch(key)
    return f"class_embed.{_first_stage(keys)}.{match[1]}" if match else copied_head(key, keys)


def _copies(key: str, keys: Collection[str]) -> tuple[str, ...]:
    """The keys that repeat a head."""
    copies = copies_of_head(key, keys)
    beginning = f"class_embed.{_first_stage(keys)}."
    if not key.startswith(beginning):
        return copies
    leaf = key.removeprefix(beginning)
    layers = range(layer_count(keys, "encoder"))
    return (*copies, *(f"{name}.{i}.{leaf}" for name in _CATEGORY_LISTS for i in layers))


def _first_stage(keys: Iterable[str]) -> int:
    """Number of the first stage's head, which follows those of the decoder layers."""
    return max(numbers(keys, r"class_embed\.(\d+)\."), default=0)


def _recognised(weights: Mapping[str, Tensor], content: Mapping[str, Any]) -> Recognised:
    name, words = backbone_with_config(weights, DETECTRON2_NAMES, "Focus-DETR", _CONFIGS)
    encoding, remarks = encoding_overrides(name, content)
    config = f"focus_detr/{_CONFIGS[name]}"
    changes = [*layer_overrides(weights, config), *encoding, "model.released_behaviour=True"]
    layers = layer_count(weights, "encoder")
    if layers < len(RELEASED_FACTORS):
        changes.append(f"model.keep_ratio={Cascade(factors=RELEASED_FACTORS[:layers])}")
    stored = StoredConfig(config, tuple(changes))
    return Recognised(f"Focus-DETR on DINO; {words}", stored, remarks)


FOCUS_DETR = ReleasedFormat(
    title="Focus-DETR",
    marks=("transformer.alpha", "transformer.tgt_embed.weight"),
    keys=FOCUS,
    recognise=_recognised,
    copied=_copied,
    copies=_copies,
)
