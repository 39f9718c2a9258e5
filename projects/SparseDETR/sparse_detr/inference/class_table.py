"""The classes of the data set that a config names, without loading the data set.

Role in the flow: class names for pictures, and category ids for results in COCO's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig, OmegaConf

from ..data.coco_json import class_names, read_coco_json
from ..data.shape_drawing import SHAPE_CLASSES


@dataclass(frozen=True)
class ClassTable:
    """Names and ids of classes, in the order of the class ids.

    Attributes:
        names: Names.
        category_ids: Their ids in the annotation file.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]


def class_table_of(config: DictConfig) -> ClassTable | None:
    """Gives the classes of a config's data, evaluation data first.

    A data set that Detectron2 knows by name (COCO, LVIS) needs no file. Of one that is given by
    paths the annotation file is read.

    Args:
        config: A config tree.

    Returns:
        The classes; None where nothing that is at hand tells them.
    """
    for split in ("test", "train"):
        node = OmegaConf.select(config, f"dataloader.{split}.dataset")
        table = _of_node(node) if isinstance(node, DictConfig) else None
        if table is not None:
            return table
    return None


def _of_node(node: Mapping[str, Any]) -> ClassTable | None:
    if node.get("json_file") is not None:
        return _of_annotations(str(node["json_file"]))
    if "num_images" in node:
        return ClassTable(tuple(SHAPE_CLASSES), tuple(range(1, len(SHAPE_CLASSES) + 1)))
    names = node.get("names")
    if not names:
        return None
    return _of_registered(names if isinstance(names, str) else str(names[0]))


def _of_annotations(json_file: str) -> ClassTable | None:
    try:
        data = read_coco_json(json_file)
        ids = sorted(int(category["id"]) for category in data["categories"])
        return ClassTable(tuple(class_names(data)), tuple(ids))
    except (OSError, ValueError, KeyError, TypeError):
        # A model may be used where its data are not.
        return None


def _of_registered(name: str) -> ClassTable | None:
    if name not in DatasetCatalog:
        return None
    metadata = MetadataCatalog.get(name)
    names = metadata.get("thing_classes")
    if names is None:
        return None
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    ids = {index: category for category, index in contiguous.items()}
    return ClassTable(tuple(names), tuple(ids.get(i, i) for i in range(len(names))))
