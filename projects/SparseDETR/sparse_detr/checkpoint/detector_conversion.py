"""A whole detector, from released names to this project's and back.

Every key of the input gets a place or a reason, every weight of the output a source; anything else
is an error.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from detectron2.config import instantiate
from torch import Tensor

from ..backbone.resnet_keys import detectron2_to_released, released_to_detectron2
from ..backbone.swin_keys import (
    project_to_released,
    relative_position_index,
    relative_position_keys,
    released_to_project,
)
from .class_rows import (
    CLASSES_80,
    CLASSES_91,
    CLASSES_KEPT,
    RELEASED_CLASSES,
    ClassRows,
    classifier_stage,
    coco_category_ids,
    detected_classes_override,
)
from .conversion_errors import (
    ConversionError,
    require_all,
    require_finite,
    require_no_leftover,
    require_shapes,
)
from .detector_traits import DetectorTraits, traits_of
from .released_keys import alias_keys, alias_source, from_released, to_released
from .report import ConversionReport
from .stored_config import StoredConfig

_BACKBONE = "backbone."
_BATCH_COUNTER = "num_batches_tracked"
_COUNTERS = ("total_params", "total_ops")


@dataclass(frozen=True)
class ConvertedDetector:
    """A detector under the names of the other side.

    Attributes:
        weights: Tensors by name.
        config: The config that builds it here.
        unused_rows: Classifier rows of no class that the output has no place for, by name here.
        report: What became of every key.
    """

    weights: dict[str, Tensor]
    config: StoredConfig
    unused_rows: dict[str, Tensor]
    report: ConversionReport


def detector_from_released(
    weights: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    classes: str = CLASSES_80,
    keep_ratio: float | None = None,
) -> ConvertedDetector:
    """Gives a released detector this project's names.

    Args:
        weights: Tensors by released name.
        arguments: Of the released training; may be empty.
        classes: :data:`CLASSES_80`, :data:`CLASSES_91` or :data:`CLASSES_KEPT`; 91 logits are
            needed for the first two, other counts are kept.
        keep_ratio: Keeping ratio to store instead of that of the training.

    Raises:
        ConversionError: A key is left over or missing, or a tensor is not what it has to be.
    """
    try:
        traits = traits_of(weights, arguments, keep_ratio)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    report = ConversionReport(traits.title, "from released")
    report.remarks += traits.assumed
    renamed, keys = _renamed(weights, traits, report)
    expected = _shapes_here(traits.config())
    require_no_leftover(
        [keys[name] for name in renamed if name not in expected],
        [_released_name(name, traits.backbone) or name for name in expected],
    )
    require_all(
        [_released_name(n, traits.backbone) or n for n in expected if n not in renamed],
        "the detector",
    )
    require_shapes(renamed, expected, keys)
    require_finite({keys[name]: tensor for name, tensor in renamed.items()})
    if traits.num_classes != RELEASED_CLASSES and classes != CLASSES_KEPT:
        report.remarks.append(
            f"{traits.num_classes} class logits are not those of the released COCO detectors and "
            "are kept as they are"
        )
        classes = CLASSES_KEPT
    return _with_classes(renamed, traits, classes, report)


def _renamed(
    weights: Mapping[str, Tensor], traits: DetectorTraits, report: ConversionReport
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by their names here, and the released key of each; reports every key."""
    renamed: dict[str, Tensor] = {}
    keys: dict[str, str] = {}
    left: list[str] = []
    for key, tensor in weights.items():
        name = _name_here(key, traits.backbone)
        source = _repeated_key(key, traits)
        if source is not None:
            if source not in weights or not weights[source].equal(tensor):
                raise ConversionError(
                    f"{key} has to repeat {source}, but differs from it; the file is damaged or of "
                    "another detector"
                )
            report.ignored(key, "copy of a head")
        elif (reason := _ignored_reason(key, tensor)) is not None:
            report.ignored(key, reason)
        elif name is None:
            left.append(key)
        else:
            renamed[name], keys[name] = tensor, key
            report.mapped(key, name)
    if left:
        known = [
            _released_name(name, traits.backbone) or name for name in _shapes_here(traits.config())
        ]
        require_no_leftover(left, known)
    return renamed, keys


def _repeated_key(key: str, traits: DetectorTraits) -> str | None:
    """The key that ``key`` has to repeat; None where it stands for itself."""
    source = alias_source(key, traits.decoder_layers + int(traits.two_stage))
    if source is not None:
        return source
    kind, _, rest = key.partition(".")
    if kind in ("class_embed", "bbox_embed") and not traits.individual_heads:
        number, _, leaf = rest.partition(".")
        return f"{kind}.0.{leaf}" if number != "0" else None
    return None


def _ignored_reason(key: str, tensor: Tensor) -> str | None:
    if key.endswith(_COUNTERS):
        return "counter of a profiler"
    if key.endswith(_BATCH_COUNTER):
        return "batch counter, of no use to frozen norms"
    if key.endswith(".attn.relative_position_index"):
        if not tensor.equal(relative_position_index()):
            raise ConversionError(f"{key} is not that of windows of 7 x 7 tokens")
        return "computed here"
    return None


def _name_here(key: str, backbone: str) -> str | None:
    to_backbone = released_to_detectron2 if backbone == "r50" else released_to_project
    inside = to_backbone(key)
    return from_released(key) if inside is None else _BACKBONE + inside


def _released_name(name: str, backbone: str) -> str | None:
    if not name.startswith(_BACKBONE):
        return to_released(name)
    of_backbone = detectron2_to_released if backbone == "r50" else project_to_released
    return of_backbone(name[len(_BACKBONE) :])


@functools.lru_cache(maxsize=4)
def _shapes_here(config: StoredConfig) -> dict[str, list[int]]:
    with torch.device("meta"):
        model = instantiate(config.load().model)
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def _with_classes(
    renamed: dict[str, Tensor], traits: DetectorTraits, classes: str, report: ConversionReport
) -> ConvertedDetector:
    """Orders the rows of the classifiers and completes config and report."""
    unused: dict[str, Tensor] = {}
    overrides: tuple[str, ...] = ()
    if classes != CLASSES_KEPT:
        if traits.object_stage is not None and not traits.individual_heads:
            raise ConversionError(
                "the first stage shares its classifier with the decoder and needs logit 0 as it "
                "is, so the classes cannot be sorted; keep them as they are (--keep-class-ids)"
            )
        rows = ClassRows(traits.object_stage)
        for name in [n for n in renamed if classifier_stage(n) is not None]:
            kept, rest = rows.contiguous(name, renamed[name])
            renamed[name] = kept if classes == CLASSES_80 else torch.cat([kept, rest])
            if classes == CLASSES_80:
                unused[name] = rest
            report.annotate(name, "rows sorted by class")
        count = len(coco_category_ids())
        if classes == CLASSES_91:
            overrides = (detected_classes_override(),)
        else:
            traits = replace(traits, num_classes=count)
            report.remarks.append(
                f"of {RELEASED_CLASSES} class logits, the {count} of COCO's categories are kept, "
                "in contiguous order; the others lie beside the weights, for the way back"
            )
    config = traits.config()
    config = StoredConfig(config.name, config.overrides + overrides)
    report.config, report.overrides = config.name, config.overrides
    return ConvertedDetector(renamed, config, unused, report)


def detector_to_released(
    weights: Mapping[str, Tensor],
    config: StoredConfig | None,
    unused_rows: Mapping[str, Tensor],
    classes_sorted: bool,
) -> ConvertedDetector:
    """Gives a detector of this project the released names, with all copies of its heads.

    Args:
        weights: Tensors by their names here.
        config: The config that came with them, if one did.
        unused_rows: Classifier rows of no class, by name here; may be empty.
        classes_sorted: Whether the classes are COCO's in contiguous order: 80 rows, or 91 with
            those of no class last. They are put in the order of category ids.

    Raises:
        ConversionError: A weight has no released name, or the whole is no released detector.
    """
    backbone = "r50" if f"{_BACKBONE}stem.conv1.weight" in weights else "swint"
    report = ConversionReport("", "to released")
    released: dict[str, Tensor] = {}
    left: list[str] = []
    require_finite(weights)
    rows = ClassRows(_object_stage(weights, config))
    for name, tensor in weights.items():
        if name.endswith(_BATCH_COUNTER):
            report.ignored(name, "batch counter, which released norms do not have")
            continue
        key, note = _released_name(name, backbone), ""
        if key is None:
            left.append(name)
            continue
        if classes_sorted and classifier_stage(name) is not None:
            if len(tensor) < RELEASED_CLASSES and name not in unused_rows:
                report.reinitialised(key, "11 rows of no class, which are not in the file")
            tensor = rows.released(name, tensor, unused_rows.get(name))
            note = "rows sorted by category id"
        released[key] = tensor
        report.mapped(name, key, note)
    require_no_leftover(left, _shapes_here(config) if config else [])
    _add_copies(released, _refines(config), report)
    if backbone == "swint":
        for key in relative_position_keys(released):
            released[key] = relative_position_index()
            report.added(key, "computed from the window size")
    back = detector_from_released(released, _arguments(config), CLASSES_KEPT)
    report.recognised = back.report.recognised
    return ConvertedDetector(released, back.config, {}, report)


def _object_stage(weights: Mapping[str, Tensor], config: StoredConfig | None) -> int | None:
    """Stage of the head whose logit 0 means "object"; None where there is none."""
    position = weights.get("query_selection.position_projection.weight")
    if position is None:
        return None
    specific = len(position) < position.shape[1]
    if config is not None:
        specific = bool(config.load().model.query_selection.class_specific)
    layers = {name.split(".")[2] for name in weights if name.startswith("decoder.layers.")}
    return None if specific else len(layers)


def _refines(config: StoredConfig | None) -> bool:
    return config is None or bool(config.load().model.decoder.refine_boxes)


def _arguments(config: StoredConfig | None) -> dict[str, Any]:
    """What a released training would have said of itself."""
    ratio = config.load().model.keep_ratio if config else None
    return {"rho": ratio} if isinstance(ratio, float) else {}


def _add_copies(released: dict[str, Tensor], refines: bool, report: ConversionReport) -> None:
    """Adds the keys under which released files repeat heads."""
    for key, source in alias_keys(released, refines).items():
        released[key] = released[source]
        report.added(key, "copy of a head")
