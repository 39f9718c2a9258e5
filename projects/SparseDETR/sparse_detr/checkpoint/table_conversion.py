"""Converts detectors whose names follow from a table: what a format has to say, and both ways.

Every key of the input gets a place or a reason, every weight of the output a source; anything else
is an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import instantiate
from torch import Tensor

from ..backbone.resnet_keys import detectron2_to_released, released_to_detectron2
from ..backbone.swin_keys import project_to_released, released_to_project
from .class_rows import (
    CLASSES_80,
    CLASSES_91,
    CLASSES_KEPT,
    RELEASED_CLASSES,
    ClassRows,
    classifier_stage,
    detected_classes_override,
    has_class_count,
    never_winning,
)
from .conversion_errors import (
    ConversionError,
    require_all,
    require_finite,
    require_no_leftover,
    require_shapes,
)
from .key_table import KeyTable
from .report import ConversionReport
from .stored_config import StoredConfig

_BACKBONE = "backbone."
_OF_AUTHORS = "backbone.0."
_COMPUTED = ("num_batches_tracked", "relative_position_index")
_FEWER_CLASSES = (
    "logits of category ids that do not exist are left out; they took a small share of the "
    "released probabilities"
)


@dataclass(frozen=True)
class Recognised:
    """What a file turned out to be.

    Attributes:
        title: The detector in words.
        config: The config that builds it here.
        remarks: What could not be read from the file and was assumed.
    """

    title: str
    config: StoredConfig
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReleasedFormat:
    """Files of one kind.

    Attributes:
        title: Of the files, in words.
        marks: Keys that together tell such a file from others.
        keys: Names of the weights outside the backbone.
        recognise: What a file is, from its weights and the other entries of the checkpoint.
        copied: The key that a key repeats, None where it stands for itself; by key and keys.
        copies: The keys that repeat a key, the other way round; by key and keys.
        torchvision_backbone: Whether a ResNet has torchvision's names below ``backbone.0.body.``,
            and a Swin its authors' below ``backbone.0.``; otherwise both have Detectron2's below
            ``backbone.``.
        label_rows: Tables with one row per class, beside the classifiers; names here.
        no_object_row: Whether classifiers have a row for "no object" behind those of the classes.
        category_id_rows: Whether classifiers for COCO have a row for each category id up to 90,
            so that classifiers of 80 rows get the others on the way back.
        spare_row: Whether classifiers have a last row that stands for nothing, which those here
            have not.
        pointwise: Beginning of the names here of linear weights that are convolutions of one cell
            there: (C', C, 1, 1). None has it where it is empty.
    """

    title: str
    marks: tuple[str, ...]
    keys: KeyTable
    recognise: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Recognised]
    copied: Callable[[str, Collection[str]], str | None] = lambda key, keys: None
    copies: Callable[[str, Collection[str]], tuple[str, ...]] = lambda key, keys: ()
    torchvision_backbone: bool = False
    label_rows: tuple[str, ...] = ()
    no_object_row: bool = False
    category_id_rows: bool = False
    spare_row: bool = False
    pointwise: str = ""

    @property
    def other_rows(self) -> int:
        """Rows of a released classifier behind those of the category ids."""
        return int(self.no_object_row) + int(self.spare_row)

    def is_pointwise(self, name: str) -> bool:
        """Whether a weight, by its name here, is a convolution of one cell there."""
        if not self.pointwise or not name.startswith(self.pointwise):
            return False
        return name.endswith(".weight")

    def fits(self, keys: Collection[str]) -> bool:
        """Whether keys are those of such a file."""
        return all(mark in keys for mark in self.marks)

    def here(self, key: str) -> str | None:
        """The name here of a key; None where no rule knows it."""
        inside = self._backbone(key)
        return self.keys.here(key) if inside is None else _BACKBONE + inside

    def _backbone(self, key: str) -> str | None:
        if self.torchvision_backbone:
            inside = released_to_detectron2(key)
            return released_to_project(key, _OF_AUTHORS) if inside is None else inside
        return released_to_project(key, _BACKBONE)

    def released(self, name: str) -> str | None:
        """The key of a name here; None where no rule knows it."""
        if not name.startswith(_BACKBONE):
            return self.keys.released(name)
        inside = name.removeprefix(_BACKBONE)
        if self.torchvision_backbone:
            return detectron2_to_released(inside) or project_to_released(inside, _OF_AUTHORS)
        return project_to_released(inside, _BACKBONE) or name


@dataclass
class TableConversion:
    """A detector under the names of the other side.

    Attributes:
        weights: Tensors by name.
        config: The config that builds it here.
        report: What became of every key.
        unused_rows: Rows of no class that the output has no place for, by name here.
    """

    weights: dict[str, Tensor]
    config: StoredConfig
    report: ConversionReport
    unused_rows: dict[str, Tensor] = field(default_factory=dict)


def from_table(
    source: ReleasedFormat,
    weights: Mapping[str, Tensor],
    content: Mapping[str, Any],
    classes: str = CLASSES_80,
) -> TableConversion:
    """Gives a detector this project's names.

    Args:
        source: What the file is.
        weights: Tensors by released name.
        content: The other entries of the checkpoint.
        classes: What becomes of classifiers of 91 rows, which follow COCO's category ids:
            ``CLASSES_80``, ``CLASSES_91`` or ``CLASSES_KEPT`` of :mod:`.class_rows`.

    Raises:
        ConversionError: A key is left over or missing, or a tensor is not what it has to be.
    """
    try:
        found = source.recognise(weights, content)
    except (KeyError, ValueError) as error:
        raise ConversionError(f"not a whole {source.title}: {error}") from error
    report = ConversionReport(found.title, "from released")
    report.remarks += found.remarks
    renamed, keys = _renamed(source, weights, report)
    unused = {}
    if classes != CLASSES_80:
        for name in renamed.keys() & set(source.label_rows):
            # One row more than classes, which stands for none of them.
            renamed[name] = renamed[name][:RELEASED_CLASSES].clone()
    if classes != CLASSES_KEPT:
        unused = _sort_rows(source, renamed, report, classes == CLASSES_91)
    other_rows = int(source.no_object_row)
    config = _with_class_count(found.config, renamed, other_rows)
    if classes == CLASSES_91 and has_class_count(renamed, RELEASED_CLASSES + other_rows):
        config = StoredConfig(config.name, (*config.overrides, detected_classes_override()))
    expected = _shapes_here(config)
    require_no_leftover([keys[n] for n in renamed if n not in expected], list(weights))
    missing = [source.released(n) or n for n in expected if n not in renamed]
    require_all(missing, "the detector")
    require_shapes(renamed, expected, keys)
    require_finite({keys[name]: tensor for name, tensor in renamed.items()})
    report.config, report.overrides = config.name, config.overrides
    return TableConversion(renamed, config, report, unused)


def _renamed(
    source: ReleasedFormat, weights: Mapping[str, Tensor], report: ConversionReport
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by their names here, and the released key of each; reports every key."""
    renamed: dict[str, Tensor] = {}
    keys: dict[str, str] = {}
    left = []
    for key, tensor in weights.items():
        original = source.copied(key, weights.keys())
        name = source.here(key)
        if original is not None:
            if original not in weights or not weights[original].equal(tensor):
                raise ConversionError(
                    f"{key} has to repeat {original}, but differs from it; the file is damaged or "
                    "of another detector"
                )
            report.ignored(key, f"copy of {original.split('.')[0]}")
        elif key.endswith(_COMPUTED):
            report.ignored(key, "computed here")
        elif name is None:
            left.append(key)
        else:
            flat = source.is_pointwise(name) and tensor.shape[2:] == (1, 1)
            renamed[name], keys[name] = tensor.flatten(1) if flat else tensor, key
            report.mapped(key, name)
    require_no_leftover(left, list(keys.values()))
    return renamed, keys


def _sort_rows(
    source: ReleasedFormat, renamed: dict[str, Tensor], report: ConversionReport, keep_all: bool
) -> dict[str, Tensor]:
    """Puts 91 rows by category id in the order of the 80 classes.

    The others come behind them with ``keep_all``; otherwise they are given.
    """
    rows, unused = ClassRows(), {}
    classifier_rows = RELEASED_CLASSES + source.other_rows
    for name, tensor in renamed.items():
        is_label = name in source.label_rows and len(tensor) >= RELEASED_CLASSES
        if not is_label and (classifier_stage(name) is None or len(tensor) != classifier_rows):
            continue
        kept, others = rows.contiguous(name, tensor[:RELEASED_CLASSES])
        last = tensor[RELEASED_CLASSES:]
        if keep_all and source.spare_row:
            renamed[name], unused[name] = torch.cat([kept, others]), last.clone()
        elif keep_all:
            renamed[name] = torch.cat([kept, others, last])
        elif is_label or source.spare_row:
            renamed[name], unused[name] = kept, torch.cat([others, last])
        else:
            renamed[name], unused[name] = torch.cat([kept, last]), others
        report.annotate(name, "rows sorted by class")
    if unused and source.no_object_row:
        report.remarks.append(_FEWER_CLASSES)
    return unused


def _with_class_count(
    config: StoredConfig, renamed: Mapping[str, Tensor], other_rows: int
) -> StoredConfig:
    """The config with the number of classes, which is that of the classifiers' rows but some."""
    rows = {len(t) for name, t in renamed.items() if classifier_stage(name) is not None}
    counts = {count - other_rows for count in rows}
    if counts == {int(config.load().model.num_classes)} or len(counts) != 1:
        return config
    return StoredConfig(config.name, (*config.overrides, f"model.num_classes={counts.pop()}"))


def to_table(
    target: ReleasedFormat,
    weights: Mapping[str, Tensor],
    config: StoredConfig | None,
    unused_rows: Mapping[str, Tensor] | None = None,
    classes_sorted: bool = False,
) -> TableConversion:
    """Gives a detector of this project released names.

    Args:
        target: What the file is to be.
        weights: Tensors by their names here.
        config: The config that came with them, if one did.
        unused_rows: Rows of no class by name here, for classifiers of 80 classes.
        classes_sorted: Whether the classes are COCO's in contiguous order: 80 rows, or 91 with
            those of no class last. They are put in the order of category ids where the released
            files have it.

    Raises:
        ConversionError: A weight has no released name, or the whole is no such detector.
    """
    report = ConversionReport("", "to released")
    require_finite(weights)
    unused_rows = unused_rows or {}
    given = weights
    if classes_sorted and target.category_id_rows:
        weights = _by_category_id(target, weights, unused_rows)
    released: dict[str, Tensor] = {}
    left = []
    for name, tensor in weights.items():
        key = target.released(name)
        if name.endswith(_COMPUTED):
            report.ignored(name, "computed")
        elif key is None:
            left.append(name)
        else:
            pointwise = target.is_pointwise(name)
            released[key] = tensor[..., None, None] if pointwise else tensor
            report.mapped(name, key)
            if tensor.shape != given[name].shape and name not in unused_rows:
                report.annotate(key, "rows of no class re-initialised")
    require_no_leftover(left, list(released))
    keys = list(released)
    for key in keys:
        for copy in target.copies(key, keys):
            released[copy] = released[key]
            report.added(copy, "copy of a head")
    back = from_table(target, released, {}, CLASSES_KEPT)
    report.recognised = back.report.recognised
    return TableConversion(released, config or back.config, report)


def _by_category_id(
    target: ReleasedFormat, weights: Mapping[str, Tensor], unused_rows: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights whose classifiers have a row for each category id again."""
    rows, result = ClassRows(), dict(weights)
    for name, tensor in weights.items():
        if classifier_stage(name) is not None:
            split = len(tensor) - int(target.no_object_row)
            unused, last = unused_rows.get(name), tensor[split:]
            if target.spare_row:
                last = never_winning(tensor, 1) if unused is None else unused[-1:]
                unused = None if unused is None else unused[:-1]
            result[name] = torch.cat([rows.released(name, tensor[:split], unused), last])
    return result


@functools.lru_cache(maxsize=4)
def _shapes_here(config: StoredConfig) -> dict[str, list[int]]:
    with torch.device("meta"):
        model = instantiate(config.load().model)
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
