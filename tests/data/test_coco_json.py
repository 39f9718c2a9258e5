from pathlib import Path
from typing import Any

import pytest

from sparse_detr.data.coco_json import class_names, fill_in_evaluation_fields, read_coco_json


def test_a_valid_file_is_read_as_it_is(coco_folder: Any) -> None:
    assert read_coco_json(coco_folder.save()) == coco_folder.data


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.json does not exist"):
        read_coco_json(tmp_path / "gone.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 200_000])
def test_invalid_json_is_one_message(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not valid json"):
        read_coco_json(file)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_missing_or_wrong_list_is_named(coco_folder: Any, key: str) -> None:
    whole = coco_folder.data.copy()
    for value, message in (({}, "is a dict"), ([1], "not objects")):
        coco_folder.data = {**whole, key: value}
        with pytest.raises(ValueError, match=f"'{key}' .*{message}"):
            read_coco_json(coco_folder.save())
    del coco_folder.data[key]
    with pytest.raises(ValueError, match=f"'{key}' is missing"):
        read_coco_json(coco_folder.save())


def test_class_names_follow_the_ids() -> None:
    categories = [{"id": 9, "name": "late"}, {"id": 3, "name": "early"}]
    assert class_names({"categories": categories}) == ["early", "late"]


def test_missing_evaluation_fields_are_filled_in_and_given_ones_kept(coco_folder: Any) -> None:
    first, second, third = coco_folder.data["annotations"]
    del first["area"], first["iscrowd"]
    third["area"] = 5.0
    assert fill_in_evaluation_fields(coco_folder.data) == 1
    assert (first["area"], first["iscrowd"], third["area"]) == (200.0, 0, 5.0)
    assert fill_in_evaluation_fields(coco_folder.data) == 0
    assert second["area"] == 168.0
