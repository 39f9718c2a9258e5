"""Data sets by name, by path, and drawn; class names and class counts taken from the data.

Role in the flow: gives the loaders Detectron2's data set dictionaries, and registers what the
evaluator and the visualiser look up by name.
"""

from __future__ import annotations

import atexit
import difflib
import functools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.structures import BoxMode

from .checker import check_dataset
from .coco_json import class_names, fill_in_evaluation_fields, read_coco_json
from .dataset_report import ERROR, SKIPPABLE, WARNING
from .shape_drawing import SHAPE_CLASSES
from .shapes import ANNOTATION_FILE, IMAGE_FOLDER, generate_shapes_dataset

logger = logging.getLogger(__name__)

AUTO = "auto"
"""Value of `model.num_classes` that asks for the class count of the data."""

_FILES_LOOKED_AT = 64
"""Image files whose presence is checked on loading: enough to notice a wrong folder."""


def load_dataset(names: str | Sequence[str], filter_empty: bool = False) -> list[dict[str, Any]]:
    """Gives the dictionaries of registered data sets, `coco_2017_train` for example.

    Args:
        names: one name or several with the same classes.
        filter_empty: leave out images without annotation; the released code keeps them.

    Returns:
        Detectron2's standard dictionaries.

    Raises:
        ValueError: a name is not registered, or its annotation file is empty or malformed.
        FileNotFoundError: its annotation file does not exist.
    """
    wanted = [names] if isinstance(names, str) else [str(name) for name in names]
    if not wanted:
        raise ValueError("names: got none, expected at least one data set name")
    for name in wanted:
        _require_registered(name)
        _require_annotations(name)
    try:
        dicts: list[dict[str, Any]] = get_detection_dataset_dicts(wanted, filter_empty=filter_empty)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        files = ", ".join(str(MetadataCatalog.get(name).get("json_file")) for name in wanted)
        raise ValueError(
            f"data set {', '.join(wanted)} ({files}) cannot be used: {error}; run "
            "tools/check_dataset.py on it for the details"
        ) from error
    return dicts


def _require_registered(name: str) -> None:
    """Raises a message with the nearest name unless `name` is registered."""
    known = list(DatasetCatalog.keys())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"names: data set {name!r} is not registered{hint}")


def _require_annotations(name: str) -> None:
    """Raises a message with the fix unless the annotation file of `name` is there."""
    json_file = MetadataCatalog.get(name).get("json_file")
    if json_file is not None and not os.path.isfile(json_file):
        root = os.environ.get("DETECTRON2_DATASETS", "datasets")
        raise FileNotFoundError(
            f"data set {name!r}: annotation file {json_file} does not exist; set the environment "
            f"variable DETECTRON2_DATASETS (now {root!r}) to the folder that holds it"
        )


def load_custom_dataset(
    names: str,
    json_file: str | os.PathLike[str] | None,
    image_root: str | os.PathLike[str] | None,
    filter_empty: bool = False,
    on_bad_sample: str = "raise",
) -> list[dict[str, Any]]:
    """Gives the dictionaries of a COCO-format data set given by paths, and registers it.

    The annotations are checked first (see `checker.py`); errors stop here with one message.
    Category ids become contiguous classes in the order of the ids.

    Args:
        names: the name to register; an earlier data set of that name is replaced.
        json_file: COCO annotation file.
        image_root: folder that the file names in it are relative to.
        filter_empty: leave out images without annotation.
        on_bad_sample: "raise", or "skip" to only log errors that a training loader with the same
            setting gets past.

    Returns:
        Detectron2's standard dictionaries.

    Raises:
        FileNotFoundError: the annotation file or the image folder does not exist.
        ValueError: a path is not given, or the annotations have errors.
    """
    json_path, root = _require_paths(names, json_file, image_root)
    data = read_coco_json(json_path)
    report = check_dataset(data, root, files="none")
    report.name = f"{names} ({json_path})"
    report.raise_if_errors(ignoring=SKIPPABLE if on_bad_sample == "skip" else ())
    if report.kinds_of(ERROR) or report.kinds_of(WARNING):
        logger.warning("%s", report.format((ERROR, WARNING)))
    _require_some_images(names, data, root)
    _register(names, data, json_path, root)
    dicts = _to_dataset_dicts(data, root)
    return [record for record in dicts if record["annotations"] or not filter_empty]


def _require_paths(
    name: str, json_file: str | os.PathLike[str] | None, image_root: str | os.PathLike[str] | None
) -> tuple[Path, Path]:
    for argument, value in (("json_file", json_file), ("image_root", image_root)):
        if value is None:
            raise ValueError(
                f"{argument}: data set {name!r} has no path; give data.train_json, "
                "data.train_images, data.val_json and data.val_images on the command line"
            )
    assert json_file is not None and image_root is not None
    if not Path(image_root).is_dir():
        raise FileNotFoundError(f"image folder {image_root} of data set {name!r} does not exist")
    return Path(json_file), Path(image_root)


def _require_some_images(name: str, data: dict[str, Any], image_root: Path) -> None:
    """Raises where the folder cannot be the right one; single missing files are the loader's."""
    looked_at = [image_root / entry["file_name"] for entry in data["images"][:_FILES_LOOKED_AT]]
    if not any(path.is_file() for path in looked_at):
        raise FileNotFoundError(
            f"image_root: none of the first {len(looked_at)} images of data set {name!r} is in "
            f"{image_root}, for example {looked_at[0]}"
        )


def _load_again(json_file: Path, image_root: Path) -> list[dict[str, Any]]:
    return _to_dataset_dicts(read_coco_json(json_file), image_root)


def _register(name: str, data: dict[str, Any], json_file: Path, image_root: Path) -> None:
    """Puts the data set into Detectron2's catalogues, replacing one of the same name."""
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, functools.partial(_load_again, json_file, image_root))
    ids = sorted(category["id"] for category in data["categories"])
    MetadataCatalog.get(name).set(
        json_file=str(_evaluation_json(data, json_file)),
        image_root=str(image_root),
        evaluator_type="coco",
        thing_classes=class_names(data),
        thing_dataset_id_to_contiguous_id={category: i for i, category in enumerate(ids)},
    )


def _evaluation_json(data: dict[str, Any], json_file: Path) -> Path:
    """Gives an annotation file that COCO's evaluation can read.

    That is `json_file` itself, or, where annotations lack `area` or `iscrowd`, a completed copy
    that is removed when the process ends (`data` is completed too).
    """
    if not fill_in_evaluation_fields(data):
        return json_file
    # One folder per copy: files of one name, from different folders, stay apart.
    copy = Path(tempfile.mkdtemp(dir=_copies_folder())) / json_file.name
    copy.write_text(json.dumps(data), encoding="utf-8")
    return copy


@functools.lru_cache(maxsize=1)
def _copies_folder() -> str:
    """Gives a folder of this process alone, which goes when the process ends."""
    folder = tempfile.mkdtemp(prefix="sparse_detr_")
    atexit.register(_remove_copies, folder, os.getpid())
    return folder


def _remove_copies(folder: str, owner: int) -> None:
    """Removes the folder of completed copies, unless called in a process forked off its owner."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _to_dataset_dicts(data: dict[str, Any], image_root: Path) -> list[dict[str, Any]]:
    """Gives checked COCO data as Detectron2's dictionaries, in the order of the image ids."""
    ids = sorted(category["id"] for category in data["categories"])
    contiguous = {category: index for index, category in enumerate(ids)}
    records: dict[int, dict[str, Any]] = {}
    for image in sorted(data["images"], key=lambda entry: int(entry["id"])):
        records[image["id"]] = {
            "file_name": str(image_root / image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [],
        }
    for annotation in data["annotations"]:
        records[annotation["image_id"]]["annotations"].append(
            {
                "id": annotation["id"],
                "bbox": annotation.get("bbox"),
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": contiguous[annotation["category_id"]],
                "iscrowd": annotation.get("iscrowd", 0),
            }
        )
    return list(records.values())


def load_shapes_dataset(
    names: str,
    root: str | os.PathLike[str],
    num_images: int,
    seed: int,
    image_size: int | Sequence[int] = 160,
) -> list[dict[str, Any]]:
    """Gives the dictionaries of a drawn-shapes data set, generated on first use, and registers it.

    Args:
        names: the name to register, which is also the folder below `root`.
        root: folder of the generated data sets.
        num_images: number of images.
        seed: seed; the splits need different ones.
        image_size: see `generate_shapes_dataset`.

    Returns:
        Detectron2's standard dictionaries.
    """
    folder = generate_shapes_dataset(Path(root) / names, num_images, seed, image_size)
    return load_custom_dataset(names, folder / ANNOTATION_FILE, folder / IMAGE_FOLDER)


def class_names_of(name: str) -> list[str]:
    """Gives the class names of a registered data set, in the order of the class ids."""
    _require_registered(name)
    names = MetadataCatalog.get(name).get("thing_classes")
    if names is None:
        _require_annotations(name)
        DatasetCatalog.get(name)  # Loading a data set is what sets its metadata.
        names = MetadataCatalog.get(name).get("thing_classes")
    if names is None:
        raise ValueError(f"name: data set {name!r} has no class names in its metadata")
    return [str(class_name) for class_name in names]


def _class_names_of_node(node: Mapping[str, Any]) -> list[str]:
    """Gives the class names of a data set node of a config, without loading its images."""
    if "json_file" in node:
        json_path, _ = _require_paths(node["names"], node["json_file"], node["image_root"])
        return class_names(read_coco_json(json_path))
    if "num_images" in node:
        return list(SHAPE_CLASSES)
    names = node["names"]
    return class_names_of(names if isinstance(names, str) else names[0])


def resolve_num_classes(cfg: Any) -> int:
    """Gives the class count of a config; `model.num_classes` "auto" takes it from the data.

    Args:
        cfg: the root of a config, with `model.num_classes`, and `dataloader` where that is "auto".

    Returns:
        The number of classes.

    Raises:
        ValueError: the value is neither a positive integer nor "auto", or training and evaluation
            data list different categories.
    """
    value = cfg.model.num_classes
    if value != AUTO:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"model.num_classes: got {value!r}, expected a positive integer or {AUTO!r}"
            )
        return value
    train = _class_names_of_node(cfg.dataloader.train.dataset)
    test = _class_names_of_node(cfg.dataloader.test.dataset)
    if train != test:
        raise ValueError(
            f"training and evaluation data list different categories: {train} and {test}; both "
            "files need the same list, as class ids are counted through it"
        )
    if not train:
        raise ValueError("the data set lists no categories, so there is nothing to detect")
    return len(train)
