"""Reading of COCO annotation files with messages that name the file and the fix.

Role in the flow: below the data set registration and the checker.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_LISTS = ("images", "annotations", "categories")


def read_coco_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Gives the content of a COCO annotation file whose three lists are lists of objects.

    Args:
        path: the json file.

    Returns:
        The parsed file; `images`, `annotations` and `categories` are lists of dictionaries.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, not json, or not of COCO's layout.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"annotation file {file} does not exist")
    try:
        with file.open(encoding="utf-8") as stream:
            data = json.load(stream)
    except (ValueError, RecursionError) as error:
        # JSONDecodeError and UnicodeDecodeError are ValueErrors.
        raise ValueError(f"annotation file {file} is not valid json: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"annotation file {file} holds a {type(data).__name__}, expected a COCO object with "
            f"the lists {', '.join(_LISTS)}"
        )
    for key in _LISTS:
        value = data.get(key)
        if not isinstance(value, list):
            found = f"is a {type(value).__name__}" if key in data else "is missing"
            raise ValueError(f"annotation file {file}: {key!r} {found}, expected a list")
        if not all(isinstance(entry, dict) for entry in value):
            raise ValueError(f"annotation file {file}: {key!r} has entries that are not objects")
    return data


def class_names(data: dict[str, Any]) -> list[str]:
    """Gives the category names in the order of their ids, which is the order of contiguous ids."""
    categories = sorted(data["categories"], key=lambda category: int(category["id"]))
    return [str(category["name"]) for category in categories]


def fill_in_evaluation_fields(data: dict[str, Any]) -> int:
    """Adds `iscrowd` and `area` where annotations lack them; COCO's evaluation needs both.

    Args:
        data: from `read_coco_json`, changed in place.

    Returns:
        The number of annotations completed; the area is that of the box.
    """
    completed = 0
    for annotation in data["annotations"]:
        if "iscrowd" in annotation and "area" in annotation:
            continue
        completed += 1
        annotation.setdefault("iscrowd", 0)
        box = annotation.get("bbox")
        # A malformed box is the checker's to report; as a zero area it is never matched.
        is_box = isinstance(box, list) and len(box) == 4
        annotation.setdefault("area", float(box[2]) * float(box[3]) if is_box else 0.0)
    return completed
