"""The data of a run is checked before anything else happens."""

import json
from pathlib import Path

import pytest
from toy import toy_config

from sparse_detr.engine.errors import UserError
from sparse_detr.engine.run_data import first_with_objects, load_run_data


def custom(shapes_root: Path, tmp_path: Path, **paths: object) -> object:
    """The toy config with its training data replaced by a COCO json given by path."""
    from detectron2.config import LazyCall

    from sparse_detr.data.datasets import load_custom_dataset

    config = toy_config(shapes_root, tmp_path / "run")
    config.dataloader.train.dataset = LazyCall(load_custom_dataset)(names="engine_custom", **paths)
    config.model.num_classes = 6
    return config


def test_a_missing_annotation_file_and_a_missing_folder_are_named(
    shapes_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for json_file, root in (("absent.json", "images"), ("absent.json", "absent")):
        config = custom(
            shapes_root,
            tmp_path,
            json_file=str(tmp_path / json_file),
            image_root=str(tmp_path / root),
        )
        with pytest.raises(UserError, match="absent"):
            load_run_data(config, with_training=True)


@pytest.mark.parametrize("images", [[], [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 4}]])
def test_an_empty_data_set_and_missing_images_are_named(
    shapes_root: Path, tmp_path: Path, images: list
) -> None:
    (tmp_path / "images").mkdir()
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    config = custom(
        shapes_root,
        tmp_path,
        json_file=str(tmp_path / "a.json"),
        image_root=str(tmp_path / "images"),
    )
    with pytest.raises(UserError, match="a.jpg" if images else "no images"):
        load_run_data(config, with_training=True)


def test_an_unregistered_name_is_an_error_with_the_nearest_one(
    shapes_root: Path, tmp_path: Path
) -> None:
    from detectron2.config import LazyCall

    from sparse_detr.data.datasets import load_dataset

    config = toy_config(shapes_root, tmp_path / "run", "model.num_classes=6")
    config.dataloader.train.dataset = LazyCall(load_dataset)(names="coco_2017_trian")
    with pytest.raises(UserError, match="coco_2017_train"):
        load_run_data(config, with_training=True)


def test_the_class_count_comes_from_the_data(shapes_root: Path, tmp_path: Path) -> None:
    config = toy_config(shapes_root, tmp_path / "run")
    load_run_data(config, with_training=False)
    assert config.model.num_classes == 6


def test_images_without_objects_are_not_chosen_for_overfitting() -> None:
    crowd = {"annotations": [{"iscrowd": 1}]}
    with_object = {"annotations": [{"iscrowd": 0}]}
    assert first_with_objects([{"annotations": []}, crowd, with_object], 1) == [with_object]
    with pytest.raises(UserError, match="only 1 images"):
        first_with_objects([crowd, with_object], 2)
