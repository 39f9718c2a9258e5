"""Two selections are compared token by token."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sparse_detr.evaluation.objects import ObjectBoxes
from sparse_detr.evaluation.selection_comparison import (
    Overlap,
    compare_selections,
    comparison_text,
)
from sparse_detr.evaluation.selection_file import StoredSelection

LEVELS = ((2, 3), (1, 2))
OBJECTS = ObjectBoxes.of([([0, 0, 20, 15], 300.0), ([20, 0, 10, 10], 5000.0)])


def stored(image_id: int, kept: list[int], levels: tuple = LEVELS) -> dict:
    mask = np.array(kept, dtype=bool)
    return {
        image_id: StoredSelection.of(image_id, f"{image_id}.png", levels, (20, 30), mask, OBJECTS)
    }


def test_overlap_is_counted() -> None:
    first, second = np.array([1, 1, 1, 0, 0, 0], bool), np.array([0, 1, 1, 1, 1, 0], bool)
    found = Overlap.of(first, second)
    assert found.iou == pytest.approx(2 / 5)
    assert found.first_in_second == pytest.approx(2 / 3)
    assert found.second_in_first == pytest.approx(2 / 4)
    assert found.by_chance == pytest.approx(2 / 5), "three of six and four of six meet in two"


def test_equal_selections_agree_fully_wherever_they_keep_anything() -> None:
    one = stored(1, [1, 1, 0, 0, 0, 0, 0, 0])
    found = compare_selections(one, one)
    assert found.overall.iou == found.levels[0].iou == 1
    assert math.isnan(found.levels[1].iou)
    assert found.objects["small"].overlap.iou == 1 and found.objects["small"].both == 1
    assert found.objects["medium"].neither == 1
    assert found.objects["large"].count == 0 and math.isnan(found.objects["large"].both)


def test_levels_objects_and_images_are_told_apart() -> None:
    first = stored(1, [1, 0, 1, 0, 0, 0, 1, 0]) | stored(2, [1, 0, 0, 0, 0, 0, 0, 0])
    second = stored(1, [1, 0, 0, 1, 0, 0, 1, 0]) | stored(2, [0, 0, 1, 0, 0, 0, 0, 0])
    found = compare_selections(first, second | stored(3, [1] * 8))
    assert found.overall.iou == pytest.approx((2 / 4 + 0) / 2)
    assert found.levels[0].iou == pytest.approx((1 / 3 + 0) / 2)
    assert found.levels[1].iou == 1
    small, medium = found.objects["small"], found.objects["medium"]
    assert (small.both, small.first_only, small.second_only) == (0.5, 0.5, 0)
    assert (medium.both, medium.first_only, medium.second_only) == (0, 0.5, 0.5)
    assert found.objects["all"].count == 4
    assert [image.image_id for image in found.images] == [2, 1]
    assert found.left_out == 1


def test_a_record_is_plain_json_and_the_text_names_the_images() -> None:
    found = compare_selections(stored(1, [1] + [0] * 7), stored(1, [0] * 8))
    record = json.loads(json.dumps(found.record(5), allow_nan=False))
    assert record["overall"]["second_in_first"] is None
    assert record["most_different"][0]["kept"] == [1, 0]
    text = comparison_text(found, 5, markdown=False)
    assert "1.png" in text and "tokens on medium objects" in text and "large" not in text
    assert "1.png" not in comparison_text(found, 0, markdown=True)


def test_selections_without_a_common_image_are_refused() -> None:
    with pytest.raises(ValueError, match="share no image"):
        compare_selections(stored(1, [0] * 8), stored(2, [0] * 8))


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="image 1 has levels"):
        compare_selections(stored(1, [0] * 8), stored(1, [0] * 4, levels=((1, 4),)))
