"""The data configs, instantiated as a run would."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate

from sparse_detr.data.datasets import resolve_num_classes
from sparse_detr.data.mapper import BadSampleError

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "common" / "data"


def load(name: str, output: Path, *overrides: str) -> Any:
    cfg = LazyConfig.load(str(CONFIGS / f"{name}.py"))
    cfg.model = {"num_classes": "auto"}
    cfg.train = {"seed": 1, "output_dir": str(output)}
    workers = ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
    cfg = LazyConfig.apply_overrides(cfg, [*workers, *overrides])
    cfg.model.num_classes = resolve_num_classes(cfg)
    return cfg


def test_the_coco_config_states_the_released_recipe(tmp_path: Path) -> None:
    cfg = load("coco", tmp_path)
    assert cfg.model.num_classes == 80
    train, augmentation = cfg.dataloader.train, cfg.dataloader.augmentation
    assert train.total_batch_size == 16 and not train.aspect_ratio_grouping
    assert not train.dataset.filter_empty and train.mapper.image_format == "RGB"
    assert list(augmentation.short_edge_lengths) == list(range(480, 801, 32))
    mapper = instantiate(train.mapper)
    assert mapper.num_classes == 80
    assert mapper.crop_probability == 0.5
    plain, cropped = mapper.augmentations.augs, mapper.augmentation_with_crop.augs
    assert [type(a).__name__ for a in plain] == ["RandomHorizontalFlip", "ResizeShorterSide"]
    assert [type(a).__name__ for a in cropped] == [
        "RandomHorizontalFlip",
        "ResizeShorterSide",
        "RandomSizeCrop",
        "ResizeShorterSide",
    ]
    assert plain[0].probability == 0.5 and plain[1].max_size == cropped[3].max_size == 1333
    assert cropped[1].short_edge_lengths == (400, 500, 600) and cropped[1].max_size is None
    assert cropped[2].crop_size == (384, 600)
    assert cropped[3].short_edge_lengths == plain[1].short_edge_lengths
    test = instantiate(cfg.dataloader.test.mapper)
    assert test.augmentations.augs[0].short_edge_lengths == (800,)
    assert not test.is_train and cfg.dataloader.test.batch_size == 2
    assert cfg.dataloader.evaluator.dataset_name == "coco_2017_val"


def test_one_override_changes_a_length_wherever_it_is_used(tmp_path: Path) -> None:
    cfg = load("coco", tmp_path, "dataloader.augmentation.short_edge_lengths=[64]")
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert mapper.augmentations.augs[1].short_edge_lengths == (64,)
    assert mapper.augmentation_with_crop.augs[3].short_edge_lengths == (64,)


def test_real_coco_images_come_through_the_released_augmentation(
    data_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    root = data_folder("coco")
    cfg = load(
        "custom_coco",
        tmp_path,
        f"data.train_json={root / 'annotations' / 'instances_train2017.json'}",
        f"data.train_images={root / 'train2017'}",
        f"data.val_json={root / 'annotations' / 'instances_val2017.json'}",
        f"data.val_images={root / 'val2017'}",
        "dataloader.train.total_batch_size=4",
    )
    assert cfg.model.num_classes == 80
    loader = instantiate(cfg.dataloader.train)
    for sample in itertools.chain(*itertools.islice(loader, 3)):
        height, width = sample["image"].shape[1:]
        assert (min(height, width) in range(480, 801, 32)) or max(height, width) >= 1332
        boxes = sample["instances"].gt_boxes.tensor
        assert (boxes[:, 2:] > boxes[:, :2]).all() and torch.isfinite(boxes).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
    sample = next(iter(instantiate(cfg.dataloader.test)))[0]
    assert min(sample["image"].shape[1:]) == 800 or max(sample["image"].shape[1:]) >= 1332
    assert "instances" not in sample


def test_a_custom_data_set_without_paths_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.train_json"):
        load("custom_coco", tmp_path)


def test_custom_data_is_given_by_paths_alone(coco_folder: Any, tmp_path: Path) -> None:
    path, images = coco_folder.save(), coco_folder.images
    overrides = [f"data.{split}_json={path}" for split in ("train", "val")]
    overrides += [f"data.{split}_images={images}" for split in ("train", "val")]
    cfg = load("custom_coco", tmp_path, *overrides)
    assert cfg.model.num_classes == 2
    test = list(instantiate(cfg.dataloader.test))
    assert [sample["image_id"] for sample in test[0]] == [7, 9]
    evaluator = instantiate(cfg.dataloader.evaluator)
    evaluator.reset()
    assert evaluator.evaluate() == {}
    (images / "a.png").write_bytes(b"")
    with pytest.raises(BadSampleError, match=r"a\.png"):
        next(iter(instantiate(cfg.dataloader.train)))


def test_training_over_faulty_data_finishes_with_skip_and_counts(
    coco_folder: Any, tmp_path: Path
) -> None:
    entries = coco_folder.data["images"]
    for number in range(6):
        name = f"more{number}.png"
        coco_folder.write_image(name, 32, 32)
        entries.append({"id": 20 + number, "file_name": name, "width": 32, "height": 32})
    faulty = {20: [1.0, 2.0, float("nan"), 4.0], 21: [1.0, 2.0, 3.0], 22: None}
    for image, box in faulty.items():
        row = coco_folder.annotation(image, image, 2, [1.0, 1.0, 2.0, 2.0])
        coco_folder.data["annotations"].append({**row, "bbox": box})
    (coco_folder.images / "more3.png").write_bytes(b"")
    (coco_folder.images / "more4.png").unlink()
    path, images = coco_folder.save(), coco_folder.images
    overrides = [f"data.{split}_json={path}" for split in ("train", "val")]
    overrides += [f"data.{split}_images={images}" for split in ("train", "val")]
    overrides += ["dataloader.train.total_batch_size=2"]
    with pytest.raises(ValueError, match="non_finite_bbox"):
        instantiate(load("custom_coco", tmp_path, *overrides).dataloader.train)
    cfg = load("custom_coco", tmp_path, *overrides, "dataloader.train.on_bad_sample=skip")
    loader = instantiate(cfg.dataloader.train)
    loaded = list(itertools.islice(loader, 12))  # three epochs of eight images
    assert {sample["image_id"] for batch in loaded for sample in batch} == {7, 9, 25}
    assert {Path(name).name for name in loader.skipped_files} == {
        f"more{number}.png" for number in range(5)
    }
    assert all(count >= 3 for count in loader.skipped_files.values())


def test_the_shapes_config_generates_what_it_loads(tmp_path: Path) -> None:
    sizes = ["data.train_images=9", "data.val_images=3", "data.image_size=64"]
    cfg = load("shapes", tmp_path, f"data.root={tmp_path / 'shapes'}", *sizes)
    assert cfg.model.num_classes >= 5
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert len(batch) == cfg.dataloader.train.total_batch_size
    assert all(sample["image"].shape == (3, 64, 64) for sample in batch)
    assert sum(len(b) for b in instantiate(cfg.dataloader.test)) == 3
    train, val = (tmp_path / "shapes" / f"shapes_{split}" for split in ("train", "val"))
    first = [(folder / "images" / "000001.png").read_bytes() for folder in (train, val)]
    assert first[0] != first[1]


@pytest.mark.parametrize("name", ["coco", "custom_coco", "shapes"])
def test_data_configs_survive_saving(name: str, tmp_path: Path) -> None:
    cfg = LazyConfig.load(str(CONFIGS / f"{name}.py"))
    cfg.model, cfg.train = {"num_classes": 3}, {"seed": 1, "output_dir": str(tmp_path)}
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    mapper = instantiate(LazyConfig.load(str(tmp_path / "config.yaml")).dataloader.train.mapper)
    assert mapper.num_classes == 3
