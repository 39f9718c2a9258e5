"""The data of a run is checked before anything else happens; bad samples stop it or are counted."""

import json
import re
import shutil
from pathlib import Path

import pytest
from omegaconf import DictConfig
from toy import final_state, run_toy, toy_config

from sparse_detr.engine.errors import UserError
from sparse_detr.engine.run_data import images_to_overfit, load_run_data


def custom(shapes_root: Path, tmp_path: Path, **paths: object) -> DictConfig:
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


def image(name: str, *boxes: list[float], crowd: int = 0) -> dict[str, object]:
    annotations = [{"bbox": box, "iscrowd": crowd} for box in boxes]
    return {"file_name": name, "height": 100, "width": 200, "annotations": annotations}


def test_the_images_with_the_largest_small_objects_are_chosen_for_overfitting() -> None:
    large, small = [0.0, 0.0, 60.0, 50.0], [0.0, 0.0, 80.0, 5.0]
    medium = [0.0, 0.0, 20.0, 30.0]
    dicts = [
        image("empty"),
        image("crowd", large, large, large, crowd=1),
        image("one", large),
        image("tiny", large, large, small),
        image("medium", large, medium, large),
        image("large", large, large, large),
    ]
    chosen = [record["file_name"] for record in images_to_overfit(dicts, 4)]
    assert chosen == ["large", "medium", "tiny", "one"]
    with pytest.raises(UserError, match="only 4 images"):
        images_to_overfit(dicts, 5)


@pytest.fixture
def with_broken_files(shapes_root: Path, tmp_path: Path) -> DictConfig:
    """The toy config on a copy of the shapes whose training data has three broken samples."""
    load_run_data(toy_config(shapes_root, tmp_path / "run"), with_training=True)
    root = shutil.copytree(shapes_root, tmp_path / "shapes")
    images = sorted((root / "shapes_train" / "images").iterdir())
    images[0].unlink()
    images[1].write_bytes(b"")
    images[2].write_bytes(images[2].read_bytes()[:40])
    source = root / "shapes_train" / "annotations.json"
    return custom(shapes_root, tmp_path, json_file=str(source), image_root=str(images[0].parent))


def test_bad_samples_stop_a_run_before_anything_is_written(
    with_broken_files: DictConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="missing_file"):
        run_toy(with_broken_files)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_samples_are_replaced_and_counted_where_the_config_says_skip(
    with_broken_files: DictConfig, tmp_path: Path, workers: int
) -> None:
    config = with_broken_files
    config.dataloader.train.on_bad_sample = "skip"
    config.dataloader.train.num_workers = workers
    run_toy(config)
    assert final_state(tmp_path / "run")["iteration"] == 12
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("Skipped a bad sample: ") == 3
    found = re.search(r"Bad samples were replaced (\d+) times .* by file: (.+)", log)
    assert found is not None
    counts = [int(count) for count in re.findall(r"\((\d+)\)", found[2])]
    # Four epochs; a broken image may be drawn as replacement of another one as well.
    assert len(counts) == 3 and min(counts) >= 4 and sum(counts) == int(found[1])
    assert {Path(name).name for name in re.findall(r"\S+\.png", found[2])} == {
        "000001.png",
        "000002.png",
        "000003.png",
    }


def test_a_training_without_bad_samples_reports_none(shapes_root: Path, tmp_path: Path) -> None:
    options = ("dataloader.train.on_bad_sample=skip", "train.max_iter=1")
    run_toy(toy_config(shapes_root, tmp_path / "run", *options))
    assert "Bad samples" not in (tmp_path / "run" / "log.txt").read_text()
