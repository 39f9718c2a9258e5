"""Detections become pictures, records and words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sparse_detr.inference import ClassTable, Detections

SIZE = (40, 60)
TABLE = ClassTable(("cat", "dog", "owl"), (3, 7, 90))


def detections(
    boxes: list[list[float]] | None = None,
    classes: list[int] | None = None,
    table: ClassTable | None = TABLE,
) -> Detections:
    boxes = [[5, 4, 25, 34], [30, 10, 50, 20], [1, 1, 9, 9]] if boxes is None else boxes
    classes = [2, 0, 2] if classes is None else classes
    instances = Instances(
        SIZE,
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        scores=torch.linspace(0.9, 0.5, len(classes)),
        pred_classes=torch.tensor(classes, dtype=torch.int64),
    )
    return Detections(instances, table, 4, None, np.full((*SIZE, 3), 200, np.uint8))


def test_they_are_counted_and_named() -> None:
    found = detections()
    assert len(found) == 3
    assert found.labels() == ["owl", "cat", "owl"]
    assert repr(found) == "Detections(image 4, 60x40: 2 owl, 1 cat)"
    assert detections(table=None).labels() == ["class 2", "class 0", "class 2"]
    assert detections([], []).summary() == "nothing"


def test_a_picture_has_the_image_outside_the_boxes_and_the_frames_where_the_boxes_are() -> None:
    picture = detections([[20, 22, 50, 36]], [1]).draw()
    assert picture.shape == (*SIZE, 3)
    assert picture.dtype == np.uint8
    changed = (picture != 200).any(axis=2)
    assert changed[22:36, 20].mean() > 0.8 and changed[22:36, 50].mean() > 0.8
    assert not changed[:, :15].any() and not changed[:20].any()


def test_a_picture_can_be_larger_and_of_another_image() -> None:
    found = detections()
    assert found.draw(scale=2.5).shape == (100, 150, 3)
    dark = np.zeros((*SIZE, 3), np.uint8)
    picture = detections([], []).draw(image=dark)
    np.testing.assert_array_equal(picture, dark)
    with pytest.raises(ValueError, match=r"image must be \(40, 60, 3\)"):
        found.draw(image=dark[:10])
    with pytest.raises(ValueError, match="scale must be a positive number, got 0"):
        found.draw(scale=0)


def test_saving_makes_the_folder_and_replaces_an_older_file(tmp_path: Path) -> None:
    found = detections()
    path = tmp_path / "new" / "größe.png"
    assert found.save(path) == path
    np.testing.assert_array_equal(np.asarray(Image.open(path)), found.draw())
    found.save(str(path), scale=2)
    assert Image.open(path).size == (120, 80)
    assert Image.open(found.save(tmp_path / "b.JPG")).format == "JPEG"
    assert sorted(p.name for p in path.parent.iterdir()) == ["größe.png"]


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.psd"])
def test_a_suffix_that_names_no_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a format of pictures"):
        detections().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_records_have_the_category_ids_of_the_data_set() -> None:
    first, *_ = records = detections().to_coco(17)
    assert [record["category_id"] for record in records] == [90, 3, 90]
    assert first["bbox"] == [5.0, 4.0, 20.0, 30.0]
    assert first["image_id"] == 17
    assert first["score"] == pytest.approx(0.9)
    assert [r["category_id"] for r in detections(table=None).to_coco(17)] == [2, 0, 2]
    assert detections([], []).to_coco(17) == []


def test_records_of_perfect_detections_have_an_ap_of_one() -> None:
    truth = COCO()
    boxes = {1: [[5.0, 4, 25, 34], [30, 10, 50, 20]], 2: [[1.0, 1, 39, 39]]}
    classes = {1: [2, 0], 2: [1]}
    annotations = [
        {"image_id": image, "category_id": TABLE.category_ids[label], "iscrowd": 0}
        | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
        for image in boxes
        for (x0, y0, x1, y1), label in zip(boxes[image], classes[image], strict=True)
    ]
    truth.dataset = {
        "images": [{"id": image, "height": 40, "width": 60} for image in boxes],
        "categories": [{"id": i, "name": n} for i, n in zip(TABLE.category_ids, TABLE.names)],
        "annotations": [{"id": i + 1, **a} for i, a in enumerate(annotations)],
        "info": {},
    }
    truth.createIndex()
    records = [
        r for image in boxes for r in detections(boxes[image], classes[image]).to_coco(image)
    ]
    evaluation = COCOeval(truth, truth.loadRes(records), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize("name", [r"$\foo$", r"\$x$", "$", "a_b^{c"])
def test_a_class_name_that_reads_like_a_formula_is_drawn_as_it_is(name: str) -> None:
    plain, odd = (
        detections(table=ClassTable((text,) * 3, (0, 1, 2))).draw(scale=4) for text in ("", name)
    )
    assert plain.shape == odd.shape and (plain != odd).any()
