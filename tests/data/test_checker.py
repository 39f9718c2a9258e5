import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import check_dataset as command
import sparse_detr
from sparse_detr.data.checker import check_dataset
from sparse_detr.data.dataset_report import KINDS


def annotation(folder: Any, index: int) -> dict[str, Any]:
    return folder.data["annotations"][index]


def set_box(index: int, box: Any):
    return lambda folder: annotation(folder, index).update(bbox=box)


def drop(index: int, key: str):
    return lambda folder: annotation(folder, index).pop(key)


def set_image(index: int, **values: Any):
    return lambda folder: folder.data["images"][index].update(values)


def append_annotation(**values: Any):
    return lambda folder: folder.data["annotations"].append({**annotation(folder, 0), **values})


def truncate(kept: int):
    def change(folder: Any) -> None:
        file = folder.images / "a.png"
        file.write_bytes(file.read_bytes()[:kept])

    return change


def rotate_by_exif(folder: Any) -> None:
    image = Image.open(folder.images / "a.png")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder.images / "a.jpg", exif=exif)
    folder.data["images"][0]["file_name"] = "a.jpg"


def write_sixteen_bit(folder: Any) -> None:
    Image.fromarray(np.full((48, 64), 40000, dtype=np.uint16)).save(folder.images / "a.png")


def crowd_only(folder: Any) -> None:
    annotation(folder, 2)["iscrowd"] = 1


FAULTS = {
    "no_images": lambda f: f.data.update(images=[], annotations=[]),
    "no_annotations": lambda f: [a.update(image_id=1) for a in f.data["annotations"]],
    "no_categories": lambda f: f.data.update(categories=[], annotations=[]),
    "type_error": lambda f: f.data["images"][0].update(id="7") or annotation(f, 0).update(id="x"),
    "duplicate_image_id": lambda f: f.data["images"].append(f.data["images"][0]),
    "duplicate_annotation_id": append_annotation(bbox=[1.0, 1.0, 2.0, 2.0]),
    "duplicate_category_id": lambda f: f.data["categories"].append({"id": 5, "name": "cow"}),
    "missing_file": lambda f: (f.images / "a.png").unlink(),
    "empty_file": truncate(0),
    "corrupt_image": truncate(2000),
    "size_mismatch": set_image(0, width=65),
    "exif_mismatch": rotate_by_exif,
    "orphan_annotation": append_annotation(id=4, image_id=123),
    "unknown_category": append_annotation(id=4, category_id=3, bbox=[1.0, 1.0, 2.0, 2.0]),
    "too_many_categories": lambda f: f.data["categories"].append({"id": 6, "name": "cow"}),
    "no_bbox": drop(1, "bbox"),
    "bbox_length": set_box(1, [1.0, 2.0, 3.0]),
    "non_finite_bbox": set_box(1, [1.0, 2.0, float("nan"), 4.0]),
    "reversed_bbox": set_box(1, [20.0, 2.0, -3.0, 4.0]),
    "ignore_flag": lambda f: annotation(f, 1).update(ignore=1),
    "degenerate_bbox": set_box(1, [20.0, 2.0, 0.0, 4.0]),
    "outside_image": set_box(1, [70.0, 2.0, 3.0, 4.0]),
    "out_of_image": set_box(1, [60.0, 2.0, 8.0, 4.0]),
    "missing_evaluation_field": drop(1, "area"),
    "duplicate_bbox": append_annotation(id=4),
    "duplicate_file": set_image(1, file_name="a.png", width=64, height=48),
    "unusual_mode": write_sixteen_bit,
    "many_objects": lambda f: f.data["annotations"].extend(
        {**annotation(f, 0), "id": 10 + i, "bbox": [i / 10, 1.0, 2.0, 2.0]} for i in range(301)
    ),
    "empty_category": lambda f: f.data["annotations"].pop(1),
    "unannotated_image": lambda f: f.data["annotations"].pop(2),
    "crowd_only_image": crowd_only,
}

CONSEQUENCES = {
    # Faults that unavoidably show as another kind as well.
    "no_annotations": {"orphan_annotation", "unannotated_image"},
    "no_images": {"empty_category"},
    "no_categories": {"unannotated_image"},
    "type_error": {"orphan_annotation", "no_annotations"},
    "duplicate_image_id": {"duplicate_file"},
    "too_many_categories": {"empty_category"},
}
ALWAYS = {"gapped_category_ids"}  # the fixture's ids are 2 and 5


def test_every_kind_has_a_fault_that_shows_it() -> None:
    elsewhere = {"class_out_of_range", "shared_with_other", "gapped_category_ids"}
    assert set(KINDS) == set(FAULTS) | elsewhere


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_found_under_its_own_kind_and_no_other(coco_folder: Any, kind: str) -> None:
    FAULTS[kind](coco_folder)
    report = check_dataset(coco_folder.save(), coco_folder.images, files="decode", num_classes=2)
    assert kind in report.counts
    assert set(report.counts) - {kind} - ALWAYS <= CONSEQUENCES.get(kind, set())
    assert report.ok == (KINDS[kind][0] != "error")
    assert f"{kind}: {report.counts[kind]}" in report.format()


def test_a_clean_data_set_has_only_information(coco_folder: Any) -> None:
    report = check_dataset(coco_folder.save(), coco_folder.images, files="decode", num_classes=2)
    assert report.ok and report.counts == {"gapped_category_ids": 3}
    assert report.examples["gapped_category_ids"] == ["1", "3", "4"]
    assert (report.num_images, report.num_annotations, report.num_categories) == (2, 3, 2)
    assert report.num_files_opened == 2


def test_offenders_are_named(coco_folder: Any) -> None:
    annotation(coco_folder, 1)["bbox"] = [1.0, 2.0, -3.0, 4.0]
    (coco_folder.images / "b.png").unlink()
    report = check_dataset(coco_folder.save(), coco_folder.images)
    assert report.examples["reversed_bbox"] == ["annotation 2 ([1.0, 2.0, -3.0, 4.0] in 64x48)"]
    assert report.examples["missing_file"] == [str(coco_folder.images / "b.png")]


def test_boxes_that_reach_out_by_rounding_are_not_reported(coco_folder: Any) -> None:
    annotation(coco_folder, 1)["bbox"] = [30.0, 20.0, 34.3, 28.2]
    assert "out_of_image" not in check_dataset(coco_folder.data, coco_folder.images).counts


def test_detectron2_dictionaries_are_checked_against_num_classes(sample: dict[str, Any]) -> None:
    assert check_dataset([sample], num_classes=2).counts == {}
    report = check_dataset([sample], num_classes=1)
    assert report.counts == {"class_out_of_range": 1} and not report.ok
    assert "category 1, num_classes 1" in report.examples["class_out_of_range"][0]


def test_detectron2_boxes_may_be_corners(sample: dict[str, Any]) -> None:
    sample["annotations"] = [{"bbox": [50.0, 30.0, 60.0, 40.0], "bbox_mode": 0, "category_id": 0}]
    assert check_dataset([sample], num_classes=1).counts == {}
    sample["annotations"][0]["bbox_mode"] = 1
    assert "out_of_image" in check_dataset([sample], num_classes=1).counts


def test_huge_annotation_lists_take_seconds(coco_folder: Any) -> None:
    coco_folder.data["annotations"] = [
        coco_folder.annotation(i, 7, 2, [i % 50 + i * 1e-6, 1.0, 2.0, 2.0]) for i in range(100_000)
    ]
    start = time.perf_counter()
    report = check_dataset(coco_folder.data, coco_folder.images, files="none")
    assert time.perf_counter() - start < 5
    assert report.ok and report.counts["many_objects"] == 1


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.one_of(st.floats(), st.integers(), st.none()), max_size=5),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_content_of_a_field_makes_the_checker_fail(data: st.DataObject) -> None:
    keys = {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore"),
        "categories": ("id", "name"),
    }
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
        "annotations": [valid_annotation(1), valid_annotation(2)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    for part, names in keys.items():
        for entry in content[part]:
            for name in data.draw(st.sets(st.sampled_from(names), max_size=2)):
                entry[name] = data.draw(anything)
    report = check_dataset(content, "nowhere", num_classes=1, files="exist")
    assert set(report.counts) <= set(KINDS) and report.format()


def valid_annotation(identity: int) -> dict[str, Any]:
    box = [1.0, 1.0, 2.0, identity + 1.0]
    row = {"id": identity, "image_id": 1, "category_id": 1, "bbox": box}
    return {**row, "area": 1.0, "iscrowd": 0}


def test_an_unknown_file_check_is_refused(coco_folder: Any) -> None:
    with pytest.raises(ValueError, match="files"):
        check_dataset(coco_folder.data, files="all")


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_known_flaw_of_the_blood_cell_data_is_found(
    data_folder: Callable[[str], Path], split: str
) -> None:
    root = data_folder("bccd")
    report = check_dataset(
        root / "annotations" / f"{split}.json", root / "images", files="decode", num_classes=3
    )
    assert report.ok and report.counts == {"degenerate_bbox": 1}
    offender = {"train": "annotation 2288", "val": "annotation 887"}[split]
    assert report.examples["degenerate_bbox"][0].startswith(offender)


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_coco_images_have_no_errors(data_folder: Callable[[str], Path], split: str) -> None:
    root = data_folder("coco")
    annotations = root / "annotations" / f"instances_{split}2017.json"
    report = check_dataset(annotations, root / f"{split}2017", files="decode", num_classes=80)
    assert report.ok and not report.kinds_of("warning")
    assert report.counts["gapped_category_ids"] == 10 and report.num_files_opened == 50


def test_the_command_tells_errors_by_its_exit_status(
    coco_folder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(coco_folder.save()), str(coco_folder.images)]
    assert command.main(arguments) == 0
    assert command.main([*arguments, "--num-classes", "1"]) == 1
    assert "too_many_categories" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), ("", "not valid"), ("{", "not valid"), ("[]", "holds a list")],
)
def test_the_command_gives_one_line_for_an_unreadable_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    file = tmp_path / "a.json"
    if content is not None:
        file.write_text(content)
    assert command.main([str(file), str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


def test_the_command_runs_as_a_program(coco_folder: Any) -> None:
    coco_folder.data["images"] = []
    program = [sys.executable, command.__file__, str(coco_folder.save()), str(coco_folder.images)]
    package_root = str(Path(sparse_detr.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package_root}
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and "no_images" in done.stdout, done.stderr


def test_nan_in_json_survives_reading(coco_folder: Any) -> None:
    annotation(coco_folder, 0)["bbox"] = [0.0, 0.0, float("inf"), 1.0]
    assert json.loads(coco_folder.save().read_text())
    assert "non_finite_bbox" in check_dataset(coco_folder.json, coco_folder.images).counts
