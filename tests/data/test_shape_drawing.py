import numpy as np
import pytest

from sparse_detr.data import shape_drawing
from sparse_detr.data.shape_drawing import (
    MIN_VISIBLE_FRACTION,
    SHAPE_CLASSES,
    SUPERSAMPLING,
    draw_image,
)


def test_at_least_five_classes_are_drawn() -> None:
    assert len(SHAPE_CLASSES) == len(set(SHAPE_CLASSES)) >= 5


@pytest.mark.parametrize("name", SHAPE_CLASSES)
@pytest.mark.parametrize("size", [8, 21.3, 80])
def test_boxes_fit_the_drawn_shape_tightly(name: str, size: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        stamp = shape_drawing._make_stamp(name, size, rng)
        x0, y0, x1, y1 = stamp.box
        columns = np.flatnonzero(stamp.alpha.max(axis=0) > 0)
        rows = np.flatnonzero(stamp.alpha.max(axis=1) > 0)
        # The box ends inside the outermost touched pixels, to a sub-pixel.
        assert columns[0] <= x0 < columns[0] + 1 and columns[-1] < x1 <= columns[-1] + 1
        assert rows[0] <= y0 < rows[0] + 1 and rows[-1] < y1 <= rows[-1] + 1
        assert abs(max(x1 - x0, y1 - y0) - size) <= 1.0 / SUPERSAMPLING + 0.01
        assert stamp.alpha.min() >= 0 and stamp.alpha.max() <= 1


def test_images_hold_one_to_eight_objects_of_eight_pixels_to_half_the_image() -> None:
    sizes, counts, classes = [], set(), set()
    for seed in range(150):
        pixels, objects = draw_image(96, 128, np.random.default_rng(seed))
        assert pixels.shape == (96, 128, 3) and pixels.dtype == np.uint8
        counts.add(len(objects))
        for drawn in objects:
            x, y, w, h = drawn.box_xywh
            assert x >= 0 and y >= 0 and x + w <= 128 and y + h <= 96
            assert 0 < drawn.area <= w * h
            sizes.append(max(w, h))
            classes.add(drawn.class_index)
    assert min(counts) >= 1 and max(counts) == 8 and len(counts) == 8
    assert 8 <= min(sizes) < 10 and 44 < max(sizes) <= 48.3
    assert classes == set(range(len(SHAPE_CLASSES)))


def test_no_annotated_shape_is_mostly_hidden() -> None:
    hidden = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        scene = shape_drawing._Scene(np.zeros((96, 96, 3), np.float32))
        for _ in range(12):
            scene.try_add(int(rng.integers(6)), float(rng.uniform(8, 48)), rng)
        for index, solid in enumerate(scene._solid):
            visible = int((scene._owner == index).sum())
            assert visible == scene._visible[index]
            assert visible >= MIN_VISIBLE_FRACTION * solid
            hidden += visible < solid
    assert hidden > 50  # occlusion does happen


def test_shapes_stand_out_from_what_is_under_them() -> None:
    rng = np.random.default_rng(0)
    under = np.full((4, 4, 3), 128.0, dtype=np.float32)
    distances = [np.linalg.norm(shape_drawing._pick_colour(under, rng) - 128) for _ in range(100)]
    assert min(distances) >= shape_drawing.MIN_COLOUR_DISTANCE


def test_the_generator_decides_everything() -> None:
    first, objects = draw_image(64, 64, np.random.default_rng(4))
    np.random.seed(1)
    second, same = draw_image(64, 64, np.random.default_rng(4))
    assert np.array_equal(first, second) and objects == same
    third, _ = draw_image(64, 64, np.random.default_rng(5))
    assert not np.array_equal(first, third)
