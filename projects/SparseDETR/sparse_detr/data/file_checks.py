"""Checks of the image files of a data set: presence, content, size, overlap of two splits.

Role in the flow: the file side of `checker.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image, ImageOps

from .dataset_report import DatasetReport

Root: TypeAlias = "str | os.PathLike[str] | None"
Split: TypeAlias = "tuple[dict[str, Any], Root]"


def _path(entry: dict[str, Any], image_root: Root) -> Path:
    return Path(image_root or "") / str(entry["file_name"])


def check_files(
    images: list[dict[str, Any]],
    image_root: Root,
    decode: bool,
    report: DatasetReport,
) -> None:
    """Reports image files that are missing or empty and, on request, those with wrong pixels.

    Args:
        images: entries with `file_name`, `width` and `height`.
        image_root: folder that the file names are relative to.
        decode: whether to read every pixel.
        report: where findings go.
    """
    for entry in images:
        path = _path(entry, image_root)
        try:
            size = path.stat().st_size
        except OSError:
            report.add("missing_file", str(path))
            continue
        if size == 0:
            report.add("empty_file", str(path))
        elif decode:
            _check_pixels(entry, path, report)


def _check_pixels(entry: dict[str, Any], path: Path, report: DatasetReport) -> None:
    report.num_files_opened += 1
    try:
        with Image.open(path) as image:
            image.load()
            raw, mode = image.size, image.mode
            rotated = ImageOps.exif_transpose(image).size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        report.add("corrupt_image", f"{path} ({error})")
        return
    expected = (entry["width"], entry["height"])
    if mode.startswith(("I", "F")):
        report.add("unusual_mode", f"{path} ({mode})")
    if rotated != expected:
        kind = "exif_mismatch" if raw == expected else "size_mismatch"
        report.add(
            kind,
            f"{path} (file {rotated[0]}x{rotated[1]}, annotated {expected[0]}x{expected[1]})",
        )


def check_shared(split: Split, other: Split, report: DatasetReport) -> None:
    """Reports files that both splits list.

    Args:
        split: COCO content and image folder of the data set that is checked.
        other: the same of the other split.
        report: where findings go.
    """
    (data, root), (other_data, other_root) = split, other
    theirs = {os.path.abspath(_path(e, other_root)) for e in other_data["images"] if _named(e)}
    for entry in data["images"]:
        if _named(entry) and os.path.abspath(_path(entry, root)) in theirs:
            report.add("shared_with_other", str(entry["file_name"]))


def _named(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("file_name"), str | os.PathLike)
