"""The data set checker: faults of COCO-format data, found before they cost a training run.

Role in the flow: run by `tools/check_dataset.py` with image decoding, and before training on the
annotations alone (a few seconds for COCO train2017).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from .coco_json import read_coco_json
from .dataset_report import DatasetReport
from .file_checks import check_files, check_shared

FILE_CHECKS = ("none", "exist", "decode")
MANY_OBJECTS = 300
_SLACK = 0.5
"""Pixels a box may reach over the border unreported: rounding, not a fault."""

_IMAGE_FIELDS = ("file_name", "width", "height")
_PLAIN_NUMBERS = (int, float)
_ANY_CLASS = range(2**31)

Source: TypeAlias = "str | os.PathLike[str] | dict[str, Any] | Sequence[dict[str, Any]]"


def check_dataset(
    source: Source,
    image_root: str | os.PathLike[str] | None = None,
    *,
    num_classes: int | None = None,
    files: str = "exist",
    max_images: int | None = None,
    other: Source | None = None,
    other_root: str | os.PathLike[str] | None = None,
) -> DatasetReport:
    """Gives what is wrong with a data set.

    Args:
        source: path of a COCO json file, its parsed content, or Detectron2 data set dictionaries
            (whose class ids are contiguous and are checked against `num_classes`).
        image_root: folder of the images; not needed for dictionaries with full file names.
        num_classes: the model's class count; None leaves that check out.
        files: "none", "exist" (file is there and not empty) or "decode" (every pixel is read, size
            and EXIF rotation are compared).
        max_images: look at the files of the first so many images only; None for all.
        other: the other split, to list files that both use.
        other_root: `image_root` of the other split; None for the same.

    Returns:
        The report; nothing is raised for faults inside the data.

    Raises:
        FileNotFoundError: the annotation file does not exist.
        ValueError: it is not COCO json, or an argument is out of range.
    """
    if files not in FILE_CHECKS:
        raise ValueError(f"files: got {files!r}, expected one of {', '.join(FILE_CHECKS)}")
    data = _as_coco(source)
    name = str(source) if isinstance(source, str | os.PathLike) else "data set"
    report = DatasetReport(name, len(data["images"]), len(data["annotations"]))
    images = _check_images(data["images"], report)
    categories = _check_categories(data.get("categories"), num_classes, report)
    _check_annotations(data, images, categories, num_classes, report)
    if files != "none":
        usable = list(images.values())[:max_images]
        check_files(usable, image_root, files == "decode", report)
    if other is not None:
        check_shared((data, image_root), (_as_coco(other), other_root or image_root), report)
    return report


def _as_coco(source: Source) -> dict[str, Any]:
    """Gives any source in COCO's layout; `categories` is absent for Detectron2 dictionaries."""
    if isinstance(source, str | os.PathLike):
        return read_coco_json(source)
    if isinstance(source, dict):
        return source
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in source:
        image_id = record.get("image_id", record.get("file_name"))
        images.append({"id": image_id, **{key: record.get(key) for key in _IMAGE_FIELDS}})
        for found in record.get("annotations", ()):
            box = found.get("bbox")
            if found.get("bbox_mode") == 0 and box is not None and len(box) == 4:
                box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]  # BoxMode.XYXY_ABS
            annotations.append(
                {
                    "id": found.get("id", len(annotations)),
                    "image_id": image_id,
                    "category_id": found.get("category_id"),
                    "bbox": box,
                    "iscrowd": found.get("iscrowd", 0),
                    "area": 0,  # Detectron2 drops it, so its absence would say nothing.
                }
            )
    return {"images": images, "annotations": annotations}


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_unique(entries: list[dict[str, Any]], kind: str, report: DatasetReport) -> None:
    ids = [entry["id"] for entry in entries if _is_id(entry.get("id"))]
    if len(set(ids)) == len(ids):
        return
    for value, count in Counter(ids).items():
        if count > 1:
            report.add(kind, f"{value} ({count} times)")


def _check_images(
    entries: list[dict[str, Any]], report: DatasetReport
) -> dict[Any, dict[str, Any]]:
    """Gives the well-formed images by id."""
    if not entries:
        report.add("no_images", report.name)
    good: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        faults = [key for key in ("width", "height") if not _positive_int(entry.get(key))]
        if not isinstance(entry.get("file_name"), str | os.PathLike):
            faults.append("file_name")
        # Detectron2 allows strings as image ids, COCO and its evaluation do not.
        if not _is_id(entry.get("id")):
            faults.append("id")
        for key in faults:
            report.add("type_error", f"image {entry.get('id')!r}: {key} = {entry.get(key)!r}")
        if not faults:
            good[entry["id"]] = entry
    _check_unique(entries, "duplicate_image_id", report)
    names = Counter(str(entry.get("file_name")) for entry in entries)
    for name, count in names.items():
        if count > 1:
            report.add("duplicate_file", f"{name} ({count} times)")
    return good


def _positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _check_categories(
    entries: list[dict[str, Any]] | None, num_classes: int | None, report: DatasetReport
) -> dict[int, str] | None:
    """Gives the category names by id; None where the source has no categories."""
    if entries is None:
        return None
    report.num_categories = len(entries)
    if not entries:
        report.add("no_categories", report.name)
    names: dict[int, str] = {}
    for entry in entries:
        if not _is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            report.add(
                "type_error",
                f"category id = {entry.get('id')!r}, name = {entry.get('name')!r}",
            )
        else:
            names[entry["id"]] = entry["name"]
    _check_unique(entries, "duplicate_category_id", report)
    if names:
        for missing in range(1, min(max(names), 10 * len(names) + 100)):
            if missing not in names:
                report.add("gapped_category_ids", str(missing))
    if num_classes is not None and len(names) > num_classes:
        report.add("too_many_categories", f"{len(names)} categories, num_classes {num_classes}")
    return names


@dataclass
class _Tally:
    """What is counted over all annotations."""

    listed: set[Any]
    matched: int = 0
    objects: Counter[Any] = field(default_factory=Counter)
    crowds: Counter[Any] = field(default_factory=Counter)
    classes: set[int] = field(default_factory=set)


def _check_annotations(
    data: dict[str, Any],
    images: dict[Any, dict[str, Any]],
    categories: dict[int, str] | None,
    num_classes: int | None,
    report: DatasetReport,
) -> None:
    tally = _Tally({e["id"] for e in data["images"] if isinstance(e.get("id"), int | str)})
    known: Container[int] = _ANY_CLASS if num_classes is None else range(num_classes)
    known = known if categories is None else categories
    seen: set[tuple[Any, ...]] = set()
    for index, annotation in enumerate(data["annotations"]):
        image_id, category = annotation.get("image_id"), annotation.get("category_id")
        box = annotation.get("bbox")
        if _is_plain(annotation, images, known):
            tally.matched += 1
            (tally.crowds if annotation["iscrowd"] else tally.objects)[image_id] += 1
            tally.classes.add(category)
        else:
            where = f"annotation {annotation.get('id', f'number {index}')}"
            _check_identity(annotation, tally, where, report)
            if _is_id(category):
                tally.classes.add(category)
                if category not in known:
                    kind = "class_out_of_range" if categories is None else "unknown_category"
                    report.add(kind, f"{where} (category {category}, num_classes {num_classes})")
            image = images.get(image_id) if _is_id(image_id) else None
            usable = _check_box(box, image, where, report)
            if not (usable and _is_id(category) and _is_id(image_id)):
                continue
        key = (image_id, category, *box)
        if key in seen:
            report.add("duplicate_bbox", f"annotation {annotation.get('id', f'number {index}')}")
        seen.add(key)
    if data["annotations"] and not tally.matched:
        report.add("no_annotations", f"{len(data['annotations'])} annotations, none matches")
    _check_unique(data["annotations"], "duplicate_annotation_id", report)
    for category, name in (categories or {}).items():
        if category not in tally.classes:
            report.add("empty_category", f"{category} {name}")
    _check_counts(images, tally, report)


def _check_identity(
    annotation: dict[str, Any], tally: _Tally, where: str, report: DatasetReport
) -> None:
    """Reports wrong ids and flags of one annotation, and counts it for its image."""
    for key in ("id", "image_id", "category_id"):
        if not _is_id(annotation.get(key)):
            report.add("type_error", f"{where}: {key} = {annotation.get(key)!r}")
    image_id = annotation.get("image_id")
    if isinstance(image_id, int | str):
        if image_id in tally.listed:
            tally.matched += 1
        else:
            report.add("orphan_annotation", f"{where} (image {image_id})")
        (tally.crowds if annotation.get("iscrowd") else tally.objects)[image_id] += 1
    if annotation.get("ignore"):
        report.add("ignore_flag", where)
    if "area" not in annotation or "iscrowd" not in annotation:
        report.add("missing_evaluation_field", where)


def _check_counts(images: dict[Any, dict[str, Any]], tally: _Tally, report: DatasetReport) -> None:
    for image_id in images:
        count = tally.objects[image_id]
        if count > MANY_OBJECTS:
            report.add("many_objects", f"image {image_id} ({count})")
        elif not count:
            kind = "crowd_only_image" if tally.crowds[image_id] else "unannotated_image"
            report.add(kind, f"image {image_id}")


def _is_plain(
    annotation: dict[str, Any], images: dict[Any, dict[str, Any]], known: Container[int]
) -> bool:
    """Says whether an annotation has no fault, quickly: nearly all of a large data set pass here.

    A False says nothing; the slower checks then name the fault, if there is one.
    """
    box, image_id = annotation.get("bbox"), annotation.get("image_id")
    category = annotation.get("category_id")
    if type(image_id) is not int or type(category) is not int or type(box) is not list:
        return False
    image = images.get(image_id)
    if image is None or category not in known or len(box) != 4 or annotation.get("ignore"):
        return False
    if "area" not in annotation or "iscrowd" not in annotation:
        return False
    x, y, w, h = box
    for value in box:
        if type(value) not in _PLAIN_NUMBERS:
            return False
    # Comparisons with NaN are false; the sums come last, as huge integers overflow them.
    width, height = image["width"], image["height"]
    fits = 0 <= x <= width and 0 <= y <= height and 0 < w <= width and 0 < h <= height
    inside = fits and x + w <= width and y + h <= height
    return bool(inside and type(annotation.get("id")) is int)


def _check_box(box: Any, image: dict[str, Any] | None, where: str, report: DatasetReport) -> bool:
    """Says whether one XYWH box is usable, after reporting what is wrong, at most one kind."""
    if box is None:
        report.add("no_bbox", where)
        return False
    numbers = isinstance(box, Sequence) or hasattr(box, "tolist")
    if not numbers or len(box) != 4 or any(not _is_number(v) for v in box):
        report.add("bbox_length", f"{where} ({box!r})")
        return False
    x, y, w, h = (_as_float(value) for value in box)
    if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(w) and math.isfinite(h)):
        kind = "non_finite_bbox"
    elif w < 0 or h < 0:
        kind = "reversed_bbox"
    elif w == 0 or h == 0:
        kind = "degenerate_bbox"
    else:
        kind = "" if image is None else _border_fault((x, y, w, h), image["width"], image["height"])
    if kind:
        size = "" if image is None else f" in {image['width']}x{image['height']}"
        report.add(kind, f"{where} ({box!r}{size})")
    return kind in ("", "out_of_image")


def _border_fault(box: Sequence[float], width: int, height: int) -> str:
    x, y, w, h = box
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "outside_image"
    if min(x, y) < -_SLACK or x + w > width + _SLACK or y + h > height + _SLACK:
        return "out_of_image"
    return ""


def _is_number(value: object) -> bool:
    if isinstance(value, bool | str | bytes):
        return False
    return isinstance(value, int | float) or hasattr(value, "__float__")


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond the largest float
        return math.inf
