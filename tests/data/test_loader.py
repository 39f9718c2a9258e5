import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparse_detr.data.augmentation import RandomHorizontalFlip, RandomSizeCrop, ResizeShorterSide
from sparse_detr.data.datasets import load_custom_dataset
from sparse_detr.data.loader import (
    SampleLoader,
    build_test_loader,
    build_train_loader,
    set_start_iteration,
)
from sparse_detr.data.mapper import BadSampleError, ClassIdError, DetrDatasetMapper
from sparse_detr.data.shapes import ANNOTATION_FILE, IMAGE_FOLDER, generate_shapes_dataset

Batch = list[dict[str, Any]]


@pytest.fixture(scope="module")
def dicts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = generate_shapes_dataset(tmp_path_factory.mktemp("shapes") / "d", 9, 0, (40, 64))
    return load_custom_dataset("loader_test", folder / ANNOTATION_FILE, folder / IMAGE_FOLDER)


def mapper() -> DetrDatasetMapper:
    flip, resize = RandomHorizontalFlip(), ResizeShorterSide((32, 40, 48))
    return DetrDatasetMapper(True, [flip, resize], [flip, RandomSizeCrop((24, 40)), resize])


def train_loader(dicts: list[dict[str, Any]], **options: Any) -> SampleLoader:
    return build_train_loader(dicts, mapper(), 4, **{"seed": 11, **options})


def batches(loader: SampleLoader, count: int) -> list[Batch]:
    return list(itertools.islice(loader, count))


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right) > 0
    for a, b in zip(itertools.chain(*left), itertools.chain(*right)):
        assert a["image_id"] == b["image_id"] and a["file_name"] == b["file_name"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
        assert torch.equal(a["instances"].gt_classes, b["instances"].gt_classes)


def test_batches_do_not_depend_on_the_number_of_workers(dicts: list[dict[str, Any]]) -> None:
    assert_same(batches(train_loader(dicts), 5), batches(train_loader(dicts, num_workers=2), 5))


def test_the_same_image_is_augmented_differently_in_each_epoch(dicts: list[dict[str, Any]]) -> None:
    shapes: dict[int, set[Any]] = {}
    for sample in itertools.chain(*batches(train_loader(dicts), 27)):
        shapes.setdefault(sample["image_id"], set()).add(tuple(sample["image"].shape))
    assert len(shapes) == 9 and all(len(seen) > 3 for seen in shapes.values())


@pytest.mark.parametrize("grouping", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_goes_on_where_the_run_was_cut(
    dicts: list[dict[str, Any]], grouping: bool, workers: int
) -> None:
    whole = batches(train_loader(dicts, aspect_ratio_grouping=grouping), 7)
    resumed = train_loader(dicts, aspect_ratio_grouping=grouping, num_workers=workers)
    set_start_iteration(resumed, 4)
    assert_same(batches(resumed, 3), whole[4:])


def test_resume_counts_the_batches_of_gradient_accumulation(dicts: list[dict[str, Any]]) -> None:
    resumed = train_loader(dicts)
    set_start_iteration(resumed, 2, batches_per_iteration=3)
    assert_same(batches(resumed, 1), batches(train_loader(dicts), 7)[6:])


def test_an_iterator_taken_before_the_resume_follows_it(dicts: list[dict[str, Any]]) -> None:
    # Detectron2 v0.6 takes the iterator when the trainer is made, before resuming.
    resumed = train_loader(dicts)
    iterator = iter(resumed)
    set_start_iteration(resumed, 4)
    assert_same([next(iterator)], batches(train_loader(dicts), 5)[4:])


def test_loading_leaves_the_training_process_random_numbers_alone(
    dicts: list[dict[str, Any]],
) -> None:
    np.random.seed(5)
    torch.manual_seed(5)
    expected = (np.random.random(), torch.rand(3))
    np.random.seed(5)
    torch.manual_seed(5)
    batches(train_loader(dicts), 2)
    assert np.random.random() == expected[0] and torch.equal(torch.rand(3), expected[1])


def test_another_seed_gives_other_batches(dicts: list[dict[str, Any]]) -> None:
    ids = [
        [s["image_id"] for s in itertools.chain(*batches(train_loader(dicts, seed=seed), 4))]
        for seed in (1, 2)
    ]
    assert ids[0] != ids[1]


def test_a_negative_seed_draws_one(dicts: list[dict[str, Any]]) -> None:
    assert len(batches(train_loader(dicts, seed=-1), 1)[0]) == 4


def test_processes_share_the_global_batch(
    dicts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batches(train_loader(dicts), 3)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        parts.append(batches(train_loader(dicts), 3))
    assert all(len(batch) == 2 for part in parts for batch in part)
    together = [[*a, *b] for a, b in zip(*parts)]
    for left, right in zip(whole, together):
        key = lambda s: (s["image_id"], tuple(s["image"].shape))  # noqa: E731
        assert sorted(map(key, left)) == sorted(map(key, right))


def test_grouping_gives_batches_of_one_orientation(dicts: list[dict[str, Any]]) -> None:
    for batch in batches(train_loader(dicts, aspect_ratio_grouping=True), 6):
        assert len({sample["width"] > sample["height"] for sample in batch}) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_training_with_one_message(
    dicts: list[dict[str, Any]], tmp_path: Path, workers: int
) -> None:
    broken = [dict(d) for d in dicts]
    broken[3]["file_name"] = str(tmp_path / "gone.png")
    with pytest.raises(BadSampleError) as caught:
        batches(train_loader(broken, num_workers=workers), 4)
    assert "gone.png does not exist" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_replaces_bad_images_and_counts_them(
    dicts: list[dict[str, Any]], tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    gone = str(tmp_path / "gone.png")
    broken = [dict(d) for d in dicts]
    broken[3]["file_name"] = gone
    loader = train_loader(broken, on_bad_sample="skip", num_workers=workers)
    loaded = batches(loader, 9)
    assert all(len(batch) == 4 for batch in loaded)
    assert loader.skipped_files[gone] >= 4  # four epochs, and chosen again as a replacement
    assert sum("gone.png" in record.getMessage() for record in caplog.records) == 1
    good = batches(train_loader(dicts), 9)
    for mine, theirs in zip(itertools.chain(*loaded), itertools.chain(*good)):
        if theirs["image_id"] != broken[3]["image_id"]:
            assert mine["image_id"] == theirs["image_id"]


def test_skipping_gives_up_when_nothing_can_be_read(
    dicts: list[dict[str, Any]], tmp_path: Path
) -> None:
    broken = [{**d, "file_name": str(tmp_path / "gone.png")} for d in dicts]
    with pytest.raises(BadSampleError, match="bad samples in a row"):
        batches(train_loader(broken, on_bad_sample="skip"), 1)


def test_a_class_out_of_range_is_never_skipped(dicts: list[dict[str, Any]]) -> None:
    checked = DetrDatasetMapper(True, [], num_classes=1)
    loader = build_train_loader(dicts, checked, 4, seed=0, on_bad_sample="skip")
    with pytest.raises(ClassIdError, match=r"set model\.num_classes"):
        batches(loader, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_test_loader_gives_each_image_once_in_order(
    dicts: list[dict[str, Any]], workers: int
) -> None:
    evaluation = DetrDatasetMapper(False, [])
    loader = build_test_loader(dicts, evaluation, batch_size=2, num_workers=workers)
    loaded = list(loader)
    assert len(loader) == len(loaded) == 5
    assert [len(batch) for batch in loaded] == [2, 2, 2, 2, 1]
    ids = [sample["image_id"] for batch in loaded for sample in batch]
    assert ids == [d["image_id"] for d in dicts]


def test_arguments_are_checked(dicts: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="data set is empty"):
        train_loader([])
    with pytest.raises(ValueError, match="data set is empty"):
        build_test_loader([], DetrDatasetMapper(False, []))
    with pytest.raises(ValueError, match="on_bad_sample"):
        train_loader(dicts, on_bad_sample="ignore")
    with pytest.raises(ValueError, match="total_batch_size"):
        build_train_loader(dicts, mapper(), 0, seed=0)
    with pytest.raises(TypeError, match="build_train_loader"):
        set_start_iteration(build_test_loader(dicts, DetrDatasetMapper(False, [])), 1)
