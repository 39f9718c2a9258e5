"""Converts a file: recognises what it is, gives its weights the other side's names, writes it.

Role in the flow: what ``tools/convert_checkpoint.py`` calls. A file is read as tensors and plain
data; the one class that is allowed beside them is ``argparse.Namespace``, which released files
carry. Nothing in a file is ever run, and nothing is written unless everything fits.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..backbone.pretrained_keys import find_backbone
from ..engine.checkpoint_file import read_checkpoint, write_checkpoint, write_text
from ..engine.errors import UserError
from ..engine.weights import weights_of
from .backbone_conversion import PREFIX, backbone_from_file, backbone_to_released
from .class_rows import (
    CLASSES_80,
    CLASSES_KEPT,
    RELEASED_CLASSES,
    coco_category_ids,
    has_class_count,
)
from .conversion_errors import ConversionError
from .detector_conversion import (
    ConvertedDetector,
    detector_from_released,
    detector_to_released,
)
from .file_traits import training_arguments
from .released_formats import RELEASED_FORMATS, format_for, format_of
from .released_keys import is_released
from .report import ConversionReport
from .stored_config import CONFIG_KEY, StoredConfig, stored_config
from .table_conversion import TableConversion, from_table, to_table

UNUSED_ROWS_KEY = "unused_class_rows"
"""Key of a converted checkpoint under which classifier rows of no class lie."""

_SUFFIX = ".pth"
_OWN_DETECTOR = "heads.stages."
# What is asked of the arguments of a released training, and of which kind it is.
_ARGUMENTS: dict[str, tuple[type, ...]] = {
    "rho": (float,),
    "num_queries": (int,),
    "with_box_refine": (bool,),
    "use_enc_aux_loss": (bool,),
    "eff_specific_head": (bool,),
    "dilation": (bool,),
}


def convert_checkpoint(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to_released: bool = False,
    classes: str = CLASSES_80,
    keep_ratio: float | None = None,
    report_file: str | os.PathLike[str] | None = None,
) -> ConversionReport:
    """Converts a checkpoint file.

    Args:
        source: A released detector or a file of a pre-trained backbone; with ``to_released`` a
            checkpoint of this project.
        target: The file to write, ``.pth``; one that is there is replaced.
        to_released: Converts back.
        classes: What becomes of 91 class logits, see
            :func:`sparse_detr.checkpoint.detector_conversion.detector_from_released`.
        keep_ratio: Keeping ratio to store for Sparse DETR instead of that of its training.
        report_file: Where to write the report as JSON.

    Returns:
        What became of every key.

    Raises:
        UserError: The input cannot be read or converted, or the output cannot be written.
    """
    path, out = os.fspath(source), Path(target)
    files = [out] if report_file is None else [out, Path(report_file)]
    _check_output(Path(path), files)
    content = read_checkpoint(path, allowed=(argparse.Namespace,))
    try:
        if to_released:
            result, report = _to_released(content, path, classes)
        else:
            result, report = _from_released(content, path, classes, keep_ratio)
    except (ConversionError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    write_checkpoint(_own_storage(result), out)
    if report_file is not None:
        try:
            write_text(report.as_json(path, str(out)), Path(report_file))
        except OSError as error:
            raise UserError(f"cannot write the report {report_file}: {error}") from error
    return report


def _check_output(source: Path, files: list[Path]) -> None:
    if files[0].suffix != _SUFFIX:
        raise UserError(f"the output {files[0]} must end in {_SUFFIX}")
    for file in files:
        if file.resolve() == source.resolve():
            raise UserError(f"the output {file} is the input; give another name")
        if not file.parent.is_dir():
            raise UserError(f"the folder of the output {file} does not exist")
    if len({file.resolve() for file in files}) != len(files):
        raise UserError(f"checkpoint and report cannot both be {files[0]}")


def _weights(content: Mapping[str, Any], path: str) -> dict[str, Tensor]:
    """The tensors of a detector, the moving average where there is one; empty for other files."""
    inner = content if "model" in content else content.get("state_dict", content)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("model", inner), Mapping):
        return {}
    names = [str(name).removeprefix("module.") for name in inner.get("model", inner)]
    if is_released(names) or any(name.startswith((_OWN_DETECTOR, PREFIX)) for name in names):
        return weights_of(inner, path, use_average=True)
    return {}


def _from_released(
    content: Mapping[str, Any], path: str, classes: str, keep_ratio: float | None
) -> tuple[dict[str, Any], ConversionReport]:
    weights = _weights(content, path)
    if any(name.startswith(_OWN_DETECTOR) for name in weights):
        raise ConversionError(
            "this is a detector of this project already; --to released converts it back"
        )
    table = format_of(weights)
    if table is not None:
        if keep_ratio is not None:
            raise ConversionError(f"a keeping ratio cannot be stored for {table.title}")
        of_table = from_table(table, weights, content, classes)
        return _detector_content(of_table), of_table.report
    if is_released(weights):
        found = detector_from_released(weights, _arguments(content), classes, keep_ratio)
        return _detector_content(found), found.report
    backbone = find_backbone(content)
    if backbone is None:
        raise ConversionError(
            f"not recognised as a detector or a backbone (keys: {_first_keys(content)}); known are "
            "released Sparse DETR and Deformable DETR; "
            f"{'; '.join(dict.fromkeys(known.title for known in RELEASED_FORMATS))}; ResNet-50, "
            "ResNet-101 and Swin-T"
        )
    tensors, report = backbone_from_file(backbone)
    return {"model": tensors}, report


def _to_released(
    content: Mapping[str, Any], path: str, classes: str
) -> tuple[dict[str, Any], ConversionReport]:
    weights = _weights(content, path)
    if is_released(weights):
        raise ConversionError("this is in the released format already")
    if not weights:
        raise ConversionError(
            f"not recognised as a checkpoint of this project (keys: {_first_keys(content)})"
        )
    if not any(name.startswith(_OWN_DETECTOR) for name in weights):
        tensors, report = backbone_to_released(weights)
        return {"model": tensors}, report
    config = stored_config(content, path)
    unused = _unused_rows(content)
    target = format_for(weights)
    if target is not None:
        other_rows = int(target.no_object_row)
        is_sorted = classes != CLASSES_KEPT and _classes_sorted(weights, config, other_rows)
        back = to_table(target, weights, config, unused, is_sorted)
        if is_sorted and target.category_id_rows:
            back.report.remarks.append(_classes_taken())
        return {"model": back.weights}, back.report
    is_sorted = classes != CLASSES_KEPT and _classes_sorted(weights, config)
    found = detector_to_released(weights, config, unused, is_sorted)
    if "ema" in content:
        found.report.remarks.append("the moving average of the weights is what was converted")
    if is_sorted:
        found.report.remarks.append(_classes_taken())
    return {"model": found.weights}, found.report


def _classes_taken() -> str:
    return f"the {len(coco_category_ids())} classes are taken for COCO's, in contiguous order"


def _classes_sorted(
    weights: Mapping[str, Tensor], config: StoredConfig | None, other_rows: int = 0
) -> bool:
    """Whether the classifier rows but ``other_rows`` are COCO's classes in contiguous order."""
    if has_class_count(weights, len(coco_category_ids()) + other_rows):
        return True
    marked = config is not None and any("detected_classes" in text for text in config.overrides)
    return marked and has_class_count(weights, RELEASED_CLASSES + other_rows)


def _unused_rows(content: Mapping[str, Any]) -> dict[str, Tensor]:
    rows = content.get(UNUSED_ROWS_KEY)
    if not isinstance(rows, Mapping):
        return {}
    return {str(name): rows[name] for name in rows if isinstance(rows[name], Tensor)}


def _detector_content(found: ConvertedDetector | TableConversion) -> dict[str, Any]:
    content: dict[str, Any] = {"model": found.weights, CONFIG_KEY: found.config.as_data()}
    if found.unused_rows:
        content[UNUSED_ROWS_KEY] = found.unused_rows
    return content


def _arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the released training says of its model; entries of another kind are passed over."""
    given = training_arguments(content)
    return {
        name: given[name]
        for name, kinds in _ARGUMENTS.items()
        if name in given and type(given[name]) in kinds
    }


def _own_storage(content: dict[str, Any]) -> dict[str, Any]:
    """The content with every tensor's memory cut to its size; tensors shared once stay shared."""
    copies: dict[int, Tensor] = {}

    def own(value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in copies:
                copies[id(value)] = value.detach().clone().contiguous()
            return copies[id(value)]
        if isinstance(value, dict):
            return {key: own(entry) for key, entry in value.items()}
        return value

    owned: dict[str, Any] = own(content)
    return owned


def _first_keys(content: Mapping[str, Any]) -> str:
    inner = content
    for key in ("model", "state_dict"):
        inner = inner[key] if isinstance(inner.get(key), Mapping) else inner
    return ", ".join(str(key) for key in list(inner)[:4]) or "none"
