"""The annotated objects of the evaluated images, and the tokens that lie on them.

Role in the flow: ground truth of the sparsity evaluator. Sizes are COCO's, by the annotation's
area in the original image, so that they are those of APs, APm and APl.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ..structures import Size

OBJECT_SIZES = ("small", "medium", "large")
_AREA_LIMITS = (32.0**2, 96.0**2)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ObjectBoxes:
    """The objects of one image; crowd regions and boxes without area are not among them.

    Attributes:
        boxes_xyxy: (T, 4) pixels of the original image.
        areas: (T,) pixels of the original image.
    """

    boxes_xyxy: Floats
    areas: Floats

    @staticmethod
    def of(rows: Iterable[tuple[Sequence[float], float]]) -> ObjectBoxes:
        """Gives the objects with these boxes (x, y, width, height) and areas."""
        usable = [(box, area) for box, area in rows if box[2] > 0 and box[3] > 0]
        boxes = np.array([box for box, _ in usable], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return ObjectBoxes(boxes, np.array([area for _, area in usable], dtype=np.float64))

    @property
    def size_indices(self) -> npt.NDArray[np.int64]:
        """(T,) index into :data:`OBJECT_SIZES`."""
        # As in COCO's evaluation, an area on a limit belongs to both sizes; here to the smaller.
        return np.searchsorted(np.array(_AREA_LIMITS), self.areas, side="left").astype(np.int64)


NO_OBJECTS = ObjectBoxes(np.zeros((0, 4)), np.zeros(0))


def objects_by_image(dataset_name: str) -> dict[Any, ObjectBoxes]:
    """Gives the objects of each image of a registered data set.

    They come from the data set's COCO annotation file, as those of COCOEvaluator do, or, where its
    metadata names none, from its dictionaries, with the box as area.

    Args:
        dataset_name: A registered name.

    Returns:
        Objects by image id; images without annotation may be missing. An annotation without box is
        none.

    Raises:
        ValueError: A box is not four numbers; the message names file and annotation.
    """
    json_file = MetadataCatalog.get(dataset_name).get("json_file")
    if json_file is None:
        return _of_dicts(DatasetCatalog.get(dataset_name))
    with PathManager.open(json_file, "r") as stream:
        content = json.load(stream)
    return _of_coco_json(content.get("annotations", ()), str(json_file))


def _of_coco_json(annotations: Iterable[Mapping[str, Any]], file: str) -> dict[Any, ObjectBoxes]:
    rows: dict[Any, list[tuple[Sequence[float], float]]] = {}
    for index, annotation in enumerate(annotations):
        box = annotation.get("bbox")
        if box is None or annotation.get("iscrowd", 0):
            continue
        try:
            _, _, width, height = (float(value) for value in box)
            area = annotation.get("area")
            area = width * height if area is None else float(area)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{file}: annotation {annotation.get('id', index)} has the box {box!r} and the "
                f"area {annotation.get('area')!r}, expected numbers (x, y, width, height)"
            ) from error
        rows.setdefault(annotation["image_id"], []).append((box, area))
    return {image: ObjectBoxes.of(entries) for image, entries in rows.items()}


def _of_dicts(records: Iterable[Mapping[str, Any]]) -> dict[Any, ObjectBoxes]:
    rows: dict[Any, list[tuple[Sequence[float], float]]] = {}
    for record in records:
        entries = rows.setdefault(record["image_id"], [])
        for annotation in record.get("annotations", ()):
            if annotation.get("bbox") is not None and not annotation.get("iscrowd", 0):
                mode = BoxMode(annotation["bbox_mode"])
                box = BoxMode.convert(list(annotation["bbox"]), mode, BoxMode.XYWH_ABS)
                entries.append((box, float(box[2] * box[3])))
    return {image: ObjectBoxes.of(entries) for image, entries in rows.items()}


@lru_cache(maxsize=64)
def cell_centres(level_sizes: tuple[Size, ...]) -> Floats:
    """Gives the centres of an image's tokens, in units of the image; kept for the next image.

    Args:
        level_sizes: L pairs (rows, columns) that the image covers.

    Returns:
        (N, 2), order (x, y): what proposals and reference points of the network are made of.
    """
    levels = []
    for rows, columns in level_sizes:
        y, x = np.divmod(np.arange(rows * columns), max(columns, 1))
        levels.append(np.stack([(x + 0.5) / max(columns, 1), (y + 0.5) / max(rows, 1)], axis=1))
    centres = np.concatenate(levels)
    centres.setflags(write=False)
    return centres


def tokens_on_objects(
    objects: ObjectBoxes, level_sizes: tuple[Size, ...], original_size: Size
) -> Bools:
    """Gives which tokens lie on which object.

    A token lies on an object if the centre of its cell is inside the box. An object so small that
    no centre is inside has one token all the same: of the finest level, the cell it is in.

    Args:
        objects: The objects.
        level_sizes: L pairs (rows, columns) that the image covers, finest first.
        original_size: (height, width) of the original image, pixels.

    Returns:
        (T, N); every row has at least one True.
    """
    height, width = original_size
    boxes = objects.boxes_xyxy
    centres = cell_centres(level_sizes) * np.array([width, height], dtype=np.float64)
    x, y = centres[None, :, 0], centres[None, :, 1]
    left, top, right, bottom = (boxes[:, side, None] for side in range(4))
    inside: Bools = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    rows, columns = level_sizes[0]
    for index in np.flatnonzero(~inside.any(1)):
        middle_x, middle_y = (boxes[index, :2] + boxes[index, 2:]) / 2
        row = int(np.clip(middle_y / height * rows, 0, rows - 1))
        column = int(np.clip(middle_x / width * columns, 0, columns - 1))
        inside[index, row * columns + column] = True
    return inside
