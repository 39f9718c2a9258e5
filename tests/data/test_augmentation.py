import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.data.transforms import AugInput, AugmentationList
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sparse_detr.data.augmentation import (
    PilResizeTransform,
    RandomHorizontalFlip,
    RandomSizeCrop,
    ResizeShorterSide,
    resized_shape,
)

RELEASED_LENGTHS = tuple(range(480, 801, 32))


def test_longer_side_is_truncated_not_rounded() -> None:
    # 800 * 640 / 480 = 1066.67; Detectron2 would make it 1067.
    assert resized_shape(480, 640, 800, 1333) == (800, 1066)
    assert resized_shape(640, 480, 800, 1333) == (1066, 800)


def test_limit_of_the_longer_side_rounds_the_shorter_one() -> None:
    # 1333 * 333 / 1000 = 443.89 -> 444; 444 * 1000 / 333 = 1333.3 -> 1333.
    assert resized_shape(333, 1000, 800, 1333) == (444, 1333)
    assert resized_shape(1000, 333, 800, 1333) == (1333, 444)


def test_longer_side_may_exceed_the_limit_by_rounding_as_released() -> None:
    # 1333 * 200 / 640 = 416.56 -> 417; 417 * 640 / 200 = 1334.4 -> 1334.
    assert resized_shape(200, 640, 800, 1333) == (417, 1334)


def test_without_limit_the_longer_side_is_free() -> None:
    assert resized_shape(100, 1000, 400, None) == (400, 4000)


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    shorter=st.integers(1, 1000),
    longest=st.one_of(st.none(), st.integers(1, 1500)),
)
def test_resized_shape_is_positive_and_keeps_the_orientation(
    height: int, width: int, shorter: int, longest: int | None
) -> None:
    new_height, new_width = resized_shape(height, width, shorter, longest)
    assert new_height >= 1 and new_width >= 1
    assert min(new_height, new_width) <= max(shorter, 1)
    if height < width:
        assert new_height <= new_width
    if width < height:
        assert new_width <= new_height


def test_test_size_of_real_images_is_800_or_limited_by_1333(
    data_folder: Callable[[str], Path],
) -> None:
    with data_folder("coco_val2017_first100_sizes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 100
    for row in rows:
        height, width = int(row["height"]), int(row["width"])
        shape = resized_shape(height, width, 800, 1333)
        assert min(shape) == 800 or max(shape) in (1332, 1333, 1334)
        assert max(shape) <= 1334


def test_resize_is_pils_antialiased_bilinear() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(60, 90, 3), dtype=np.uint8)
    resized = PilResizeTransform(60, 90, 20, 30).apply_image(pixels)
    expected = Image.fromarray(pixels).resize((30, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(expected))


def test_resize_of_one_channel_keeps_the_channel_axis() -> None:
    resized = PilResizeTransform(8, 8, 4, 6).apply_image(np.zeros((8, 8, 1), np.uint8))
    assert resized.shape == (4, 6, 1)


def test_resize_scales_boxes_by_the_exact_size_ratio_and_inverts() -> None:
    transform = PilResizeTransform(480, 640, 800, 1066)
    box = np.array([[10.0, 20.0, 300.0, 400.0]])
    moved = transform.apply_box(box.copy())
    expected = [[10 * 1066 / 640, 20 * 800 / 480, 300 * 1066 / 640, 400 * 800 / 480]]
    np.testing.assert_allclose(moved, expected)
    np.testing.assert_allclose(transform.inverse().apply_box(moved), box)


def test_shorter_side_takes_every_length_and_no_other() -> None:
    np.random.seed(0)
    augmentation = ResizeShorterSide(RELEASED_LENGTHS, 1333)
    image = np.zeros((480, 600, 3), np.uint8)
    heights = {augmentation.get_transform(image).new_height for _ in range(300)}
    assert heights == set(RELEASED_LENGTHS)


def test_crop_sides_are_independent_and_cover_their_range() -> None:
    np.random.seed(0)
    augmentation = RandomSizeCrop((384, 600))
    image = np.zeros((500, 800, 3), np.uint8)
    crops = [augmentation.get_transform(image) for _ in range(3000)]
    heights, widths = np.array([c.h for c in crops]), np.array([c.w for c in crops])
    assert (heights.min(), heights.max()) == (384, 500)
    assert (widths.min(), widths.max()) == (384, 600)
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.1
    assert all(c.x0 + c.w <= 800 and c.y0 + c.h <= 500 for c in crops)
    assert min(c.x0 for c in crops) == 0 and any(c.x0 + c.w == 800 for c in crops)


def test_crop_keeps_a_side_shorter_than_the_smallest_crop_whole() -> None:
    crop = RandomSizeCrop((384, 600)).get_transform(np.zeros((100, 800, 3), np.uint8))
    assert (crop.y0, crop.h) == (0, 100)


@pytest.mark.parametrize(("probability", "flipped"), [(0.0, False), (1.0, True)])
def test_flip_probability_is_obeyed_and_boxes_follow(probability: float, flipped: bool) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    aug_input = AugInput(image, boxes=np.array([[0.0, 0.0, 1.0, 2.0]]))
    AugmentationList([RandomHorizontalFlip(probability)])(aug_input)
    expected = image[:, ::-1] if flipped else image
    np.testing.assert_array_equal(aug_input.image, expected)
    assert aug_input.boxes.tolist() == [[3.0, 0.0, 4.0, 2.0] if flipped else [0.0, 0.0, 1.0, 2.0]]


def test_a_box_stays_on_its_object_through_flip_resize_and_crop() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    image[100:200, 150:290] = 255
    steps = [
        RandomHorizontalFlip(0.5),
        ResizeShorterSide((240, 300, 360)),
        RandomSizeCrop((180, 260)),
        ResizeShorterSide((200, 333), 500),
    ]
    for seed in range(50):
        np.random.seed(seed)
        aug_input = AugInput(image, boxes=np.array([[150.0, 100.0, 290.0, 200.0]]))
        AugmentationList(steps)(aug_input)
        height, width = aug_input.image.shape[:2]
        bright = aug_input.image[..., 0] > 127
        columns, rows = np.flatnonzero(bright.any(0)), np.flatnonzero(bright.any(1))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        box = np.clip(aug_input.boxes[0], 0, [width, height, width, height])
        np.testing.assert_allclose(box, seen, atol=1.01)


@pytest.mark.parametrize("bad", [(), (0,), (480, -1)])
def test_lengths_must_be_positive(bad: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="short_edge_lengths"):
        ResizeShorterSide(bad)


@pytest.mark.parametrize("bad", [(600, 384), (384,), (0, 5)])
def test_crop_size_must_be_a_range(bad: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="crop_size"):
        RandomSizeCrop(bad)


def test_flip_probability_must_be_a_probability() -> None:
    with pytest.raises(ValueError, match="probability"):
        RandomHorizontalFlip(1.5)
