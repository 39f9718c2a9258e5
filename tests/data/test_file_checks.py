from typing import Any

from sparse_detr.data.checker import check_dataset
from sparse_detr.data.dataset_report import DatasetReport
from sparse_detr.data.file_checks import check_files, check_shared


def test_files_are_left_alone_unless_asked_for(coco_folder: Any) -> None:
    for file in coco_folder.images.iterdir():
        file.write_bytes(b"not an image")
    assert check_dataset(coco_folder.data, coco_folder.images, files="exist").ok
    (coco_folder.images / "a.png").unlink()
    assert check_dataset(coco_folder.data, coco_folder.images, files="none").ok
    assert check_dataset(coco_folder.data, coco_folder.images, max_images=0).ok
    assert not check_dataset(coco_folder.data, coco_folder.images, max_images=1).ok


def test_files_that_both_splits_list_are_found(coco_folder: Any) -> None:
    other = {**coco_folder.data, "images": coco_folder.data["images"][:1]}
    report = check_dataset(coco_folder.data, coco_folder.images, other=other)
    assert report.examples["shared_with_other"] == ["a.png"]
    elsewhere = coco_folder.root / "elsewhere"
    report = check_dataset(coco_folder.data, coco_folder.images, other=other, other_root=elsewhere)
    assert "shared_with_other" not in report.counts


def test_a_decoded_file_is_compared_with_its_entry(coco_folder: Any) -> None:
    report = DatasetReport("data")
    check_files(coco_folder.data["images"], coco_folder.images, True, report)
    assert report.counts == {} and report.num_files_opened == 2
    swapped = [
        {**e, "width": e["height"], "height": e["width"]} for e in coco_folder.data["images"]
    ]
    check_files(swapped, coco_folder.images, True, report)
    assert report.counts == {"size_mismatch": 2}
    assert "file 64x48, annotated 48x64" in report.examples["size_mismatch"][0]


def test_entries_without_a_file_name_are_not_shared() -> None:
    report = DatasetReport("data")
    nameless = {"images": [{"id": 1}, {"file_name": None}]}
    check_shared((nameless, "a"), (nameless, "a"), report)
    assert report.counts == {}
