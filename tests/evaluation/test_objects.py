"""Objects of the images, their sizes as COCO's evaluation has them, and the tokens on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from sparse_detr.evaluation.objects import (
    OBJECT_SIZES,
    ObjectBoxes,
    cell_centres,
    objects_by_image,
    tokens_on_objects,
)

NAME = "objects_test"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    if NAME in DatasetCatalog:
        DatasetCatalog.remove(NAME)
    if NAME in MetadataCatalog:
        MetadataCatalog.remove(NAME)


def register_json(tmp_path: Path, annotations: list[dict]) -> None:
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps({"images": [], "categories": [], "annotations": annotations}))
    MetadataCatalog.get(NAME).set(json_file=str(file))


def test_objects_come_from_the_annotation_file_with_its_areas(tmp_path: Path) -> None:
    register_json(
        tmp_path,
        [
            {"image_id": 7, "bbox": [1, 2, 30, 40], "area": 900.0, "iscrowd": 0},
            {"image_id": 7, "bbox": [0, 0, 50, 50], "area": 2000.0, "iscrowd": 1},
            {"image_id": 7, "bbox": [5, 5, 0, 10], "area": 0.0},
            {"image_id": 9, "bbox": [0, 0, 200, 100]},
        ],
    )
    found = objects_by_image(NAME)
    assert found[7].boxes_xyxy.tolist() == [[1, 2, 31, 42]]
    assert found[7].areas.tolist() == [900.0]
    assert found[9].areas.tolist() == [20000.0]


def test_without_an_annotation_file_they_come_from_the_dictionaries() -> None:
    annotation = {"bbox": [10, 20, 40, 60], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    crowd = {**annotation, "iscrowd": 1}
    records = [
        {"image_id": "a", "annotations": [annotation, crowd]},
        {"image_id": "b", "annotations": []},
        {"image_id": "c"},
    ]
    DatasetCatalog.register(NAME, lambda: records)
    found = objects_by_image(NAME)
    assert found["a"].boxes_xyxy.tolist() == [[10, 20, 40, 60]]
    assert found["a"].areas.tolist() == [1200.0]
    assert len(found["b"].areas) == len(found["c"].areas) == 0


def test_a_file_without_annotations_has_no_objects(tmp_path: Path) -> None:
    file = tmp_path / "test_images.json"
    file.write_text(json.dumps({"images": [{"id": 1}], "categories": []}))
    MetadataCatalog.get(NAME).set(json_file=str(file))
    assert objects_by_image(NAME) == {}


def test_sizes_are_those_of_coco() -> None:
    objects = ObjectBoxes.of([([0, 0, 9, 9], area) for area in (1, 1023, 1025, 9215, 9217)])
    names = [OBJECT_SIZES[index] for index in objects.size_indices]
    assert names == ["small", "small", "medium", "medium", "large"]


def test_centres_are_those_of_the_cells() -> None:
    centres = cell_centres(((2, 4), (1, 2)))
    assert centres.shape == (10, 2)
    assert centres[0].tolist() == [0.125, 0.25]
    assert centres[5].tolist() == [0.375, 0.75]
    assert centres[8].tolist() == [0.25, 0.5]


def test_tokens_on_objects_equal_a_search_cell_by_cell() -> None:
    generator = np.random.default_rng(0)
    sizes, (height, width) = ((7, 9), (4, 5), (2, 3)), (53, 71)
    corners = generator.uniform(0, 40, (20, 2))
    rows = [([x, y, *generator.uniform(8, 40, 2)], 1.0) for x, y in corners]
    objects = ObjectBoxes.of(rows)
    found = tokens_on_objects(objects, sizes, (height, width))
    for index, (left, top, right, bottom) in enumerate(objects.boxes_xyxy):
        expected = []
        for level_rows, columns in sizes:
            for row in range(level_rows):
                for column in range(columns):
                    x, y = (column + 0.5) / columns * width, (row + 0.5) / level_rows * height
                    expected.append(left <= x < right and top <= y < bottom)
        assert any(expected)
        assert found[index].tolist() == expected


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [30.2, 18.1, 1, 1], [63, 39, 1, 1], [70, 50, 2, 2]])
def test_an_object_between_the_centres_has_the_finest_cell_that_it_is_in(box: list) -> None:
    sizes = ((5, 8), (3, 4))
    (found,) = tokens_on_objects(ObjectBoxes.of([(box, 1.0)]), sizes, (40, 64))
    row, column = min(int((box[1] + box[3] / 2) / 8), 4), min(int((box[0] + box[2] / 2) / 8), 7)
    assert np.flatnonzero(found).tolist() == [row * 8 + column]


def test_no_objects_give_no_rows() -> None:
    assert tokens_on_objects(ObjectBoxes.of([]), ((2, 2),), (10, 10)).shape == (0, 4)


def test_an_annotation_without_box_is_no_object(tmp_path: Path) -> None:
    whole = {"image_id": 7, "bbox": [1, 2, 30, 40], "area": None}
    register_json(tmp_path, [{"image_id": 7}, {"image_id": 7, "bbox": None, "area": 5.0}, whole])
    found = objects_by_image(NAME)
    assert found[7].boxes_xyxy.tolist() == [[1, 2, 31, 42]]
    assert found[7].areas.tolist() == [1200.0]


def test_a_dictionary_without_box_is_no_object() -> None:
    DatasetCatalog.register(NAME, lambda: [{"image_id": 1, "annotations": [{"category_id": 0}]}])
    assert len(objects_by_image(NAME)[1].areas) == 0


@pytest.mark.parametrize("box", [[1, 2, 3], "none", [1, 2, None, 4], 5])
def test_a_box_of_another_form_is_named_with_file_and_annotation(
    tmp_path: Path, box: object
) -> None:
    register_json(tmp_path, [{"id": 31, "image_id": 7, "bbox": box}])
    with pytest.raises(ValueError, match=r"annotations\.json: annotation 31 has the box"):
        objects_by_image(NAME)
