"""Drawing of one synthetic image: noisy background, clutter lines, anti-aliased shapes.

Role in the flow: the pixel side of the drawn-shapes data set (`shapes.py` writes the files).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

SUPERSAMPLING = 4
"""Sub-pixels per pixel and direction; a box edge is exact to a quarter of a pixel."""

MIN_VISIBLE_FRACTION = 0.5
"""A shape that would leave less than this of an earlier shape visible is placed elsewhere."""

MAX_TILT = math.radians(20)
"""Largest rotation of a shape from its upright pose, either way, in radians."""

MIN_SIZE = 8
"""Smallest longer side of a shape, in pixels."""

MIN_COLOUR_DISTANCE = 90.0
"""Euclidean RGB distance (0..255 per channel) asked for between a shape and what lies under it."""

_PLACEMENT_ATTEMPTS = 20
_COLOUR_ATTEMPTS = 20


@dataclass(frozen=True)
class DrawnObject:
    """One annotated shape.

    Attributes:
        class_index: position in `SHAPE_CLASSES`.
        box_xywh: full extent of the drawn shape, hidden parts included, in pixels (x, y, w, h).
        area: area of the whole shape, hidden parts included, in pixels squared.
    """

    class_index: int
    box_xywh: tuple[float, float, float, float]
    area: float


@dataclass(frozen=True)
class _Stamp:
    """An anti-aliased shape on its own small canvas."""

    alpha: FloatArray  # (h, w), 0..1
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 inside the canvas, pixels


def _regular_points(radii: list[float], start: float) -> FloatArray:
    """Gives points at equal angles with the radii in turn, shape (len(radii), 2)."""
    angles = start + np.arange(len(radii)) * (2 * math.pi / len(radii))
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.asarray(radii)[:, None]
    return np.asarray(points, dtype=np.float32)


def _rotate(points: FloatArray, angle: float) -> FloatArray:
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = np.array([[cos, -sin], [sin, cos]], dtype=np.float32)
    return (points @ rotation.T).astype(np.float32)


def _tilt(rng: np.random.Generator) -> float:
    return float(rng.uniform(-MAX_TILT, MAX_TILT))


def _triangle(rng: np.random.Generator) -> FloatArray:
    upright = -math.pi / 2
    return _regular_points([1.0, float(rng.uniform(0.8, 1.0)), 1.0], upright + _tilt(rng))


def _rectangle(rng: np.random.Generator) -> FloatArray:
    half = float(rng.uniform(0.45, 1.0))
    corners = np.array([[-1, -half], [1, -half], [1, half], [-1, half]], dtype=np.float32)
    return _rotate(corners, _tilt(rng))


def _star(rng: np.random.Generator) -> FloatArray:
    inner = float(rng.uniform(0.38, 0.48))
    return _regular_points([1.0, inner] * 5, -math.pi / 2 + _tilt(rng))


def _cross(rng: np.random.Generator) -> FloatArray:
    t = float(rng.uniform(0.25, 0.36))
    quarter = [(t, 1.0), (-t, 1.0), (-t, t), (-1.0, t), (-1.0, -t), (-t, -t)]
    half_turn = [(-x, -y) for x, y in quarter]
    return _rotate(np.array(quarter + half_turn, dtype=np.float32), _tilt(rng))


def _circle(rng: np.random.Generator) -> FloatArray:
    del rng  # a circle has no free parameter besides its size
    return _regular_points([1.0] * 64, 0.0)


_OUTLINES: dict[str, Callable[[np.random.Generator], FloatArray]] = {
    "circle": _circle,
    "rectangle": _rectangle,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _circle,
}

SHAPE_CLASSES: tuple[str, ...] = tuple(_OUTLINES)
"""Class names in the order of their contiguous ids."""


def _make_stamp(name: str, size: float, rng: np.random.Generator) -> _Stamp:
    """Gives the anti-aliased shape whose longer side is about `size` pixels."""
    outline = _OUTLINES[name](rng)
    low, high = outline.min(axis=0), outline.max(axis=0)
    scale = size * SUPERSAMPLING / float((high - low).max())
    # A random sub-pixel offset keeps the boxes from all starting on whole pixels.
    offset = rng.integers(0, SUPERSAMPLING, size=2)
    points = (outline - low) * scale + offset
    extent = points.max(axis=0) + 1
    width, height = (math.ceil(float(v) / SUPERSAMPLING) * SUPERSAMPLING for v in extent)
    canvas = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(canvas)
    draw.polygon([(float(x), float(y)) for x, y in points], fill=255)
    if name == "ring":
        inner = float(rng.uniform(0.5, 0.65))
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        hole = (points - centre) * inner + centre
        draw.polygon([(float(x), float(y)) for x, y in hole], fill=0)
    fine = np.asarray(canvas, dtype=np.float32) / 255.0
    columns, rows = np.flatnonzero(fine.any(axis=0)), np.flatnonzero(fine.any(axis=1))
    box = (
        float(columns[0]) / SUPERSAMPLING,
        float(rows[0]) / SUPERSAMPLING,
        float(columns[-1] + 1) / SUPERSAMPLING,
        float(rows[-1] + 1) / SUPERSAMPLING,
    )
    blocks = fine.reshape(
        height // SUPERSAMPLING, SUPERSAMPLING, width // SUPERSAMPLING, SUPERSAMPLING
    )
    return _Stamp(alpha=blocks.mean(axis=(1, 3)), box=box)


def _background(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Gives a blotchy background without pixel noise, (h, w, 3) in 0..255."""
    base = rng.uniform(30, 225, size=3)
    grid = rng.integers(2, 7)
    coarse = base + rng.normal(0, rng.uniform(5, 30), size=(grid, grid, 3))
    coarse_image = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    smooth = coarse_image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(smooth, dtype=np.float32)


def _draw_lines(canvas: FloatArray, count: int, widest: int, rng: np.random.Generator) -> None:
    """Draws random straight lines and arcs into `canvas` (h, w, 3), in place."""
    height, width = canvas.shape[:2]
    for _ in range(count):
        mask = Image.new("L", (2 * width, 2 * height), 0)
        draw = ImageDraw.Draw(mask)
        ends = rng.uniform(-0.1, 1.1, size=4) * np.array([width, height, width, height]) * 2
        thickness = int(rng.integers(2, 2 * widest + 1))
        if rng.random() < 0.7:
            draw.line([float(v) for v in ends], fill=255, width=thickness)
        else:
            x0, x1 = sorted((float(ends[0]), float(ends[2])))
            y0, y1 = sorted((float(ends[1]), float(ends[3])))
            start = float(rng.uniform(0, 360))
            # At most a third of the turn: a closed ellipse would be an unannotated ring.
            draw.arc([x0, y0, x1 + 1, y1 + 1], start, start + 120, fill=255, width=thickness)
        alpha = np.asarray(mask.reduce(2), dtype=np.float32)[..., None] / 255.0
        colour = rng.uniform(0, 255, size=3).astype(np.float32)
        canvas += alpha * (colour - canvas)


def _pick_colour(under: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Gives a colour (3,) that differs from the mean colour of `under` (h, w, 3)."""
    mean: FloatArray = under.reshape(-1, 3).mean(axis=0)
    best, best_distance = mean, -1.0
    for _ in range(_COLOUR_ATTEMPTS):
        colour = rng.uniform(0, 255, size=3).astype(np.float32)
        distance = float(np.linalg.norm(colour - mean))
        if distance >= MIN_COLOUR_DISTANCE:
            return colour
        if distance > best_distance:
            best, best_distance = colour, distance
    return best


class _Scene:
    """The canvas together with which shape owns which pixel."""

    def __init__(self, canvas: FloatArray) -> None:
        self.canvas = canvas
        self.objects: list[DrawnObject] = []
        self._owner = np.full(canvas.shape[:2], -1, dtype=np.int16)
        self._solid: list[int] = []  # pixels of each whole shape
        self._visible: list[int] = []  # those of them not hidden by later shapes

    def _hides_too_much(self, rows: slice, columns: slice, solid: BoolArray) -> bool:
        covered = self._owner[rows, columns][solid]
        for index, lost in zip(*np.unique(covered[covered >= 0], return_counts=True), strict=True):
            left = self._visible[index] - int(lost)
            if left < MIN_VISIBLE_FRACTION * self._solid[index]:
                return True
        return False

    def try_add(self, class_index: int, size: float, rng: np.random.Generator) -> bool:
        """Draws one shape on top, unless no place is found that hides no earlier one too much."""
        height, width = self.canvas.shape[:2]
        stamp = _make_stamp(SHAPE_CLASSES[class_index], size, rng)
        rows_needed, columns_needed = stamp.alpha.shape
        if rows_needed > height or columns_needed > width:
            return False
        solid = stamp.alpha >= 0.5
        for _ in range(_PLACEMENT_ATTEMPTS):
            top = int(rng.integers(0, height - rows_needed + 1))
            left = int(rng.integers(0, width - columns_needed + 1))
            rows, columns = slice(top, top + rows_needed), slice(left, left + columns_needed)
            if not self._hides_too_much(rows, columns, solid):
                self._paint(class_index, stamp, solid, (top, left), rng)
                return True
        return False

    def _paint(
        self,
        class_index: int,
        stamp: _Stamp,
        solid: BoolArray,
        corner: tuple[int, int],
        rng: np.random.Generator,
    ) -> None:
        top, left = corner
        rows = slice(top, top + solid.shape[0])
        columns = slice(left, left + solid.shape[1])
        under = self.canvas[rows, columns]
        shading = np.linspace(-1, 1, solid.shape[0], dtype=np.float32)[:, None, None]
        colour = _pick_colour(under, rng) + shading * np.float32(rng.uniform(-20, 20))
        under += stamp.alpha[..., None] * (colour - under)
        owner = self._owner[rows, columns]
        hidden, lost = np.unique(owner[solid & (owner >= 0)], return_counts=True)
        for index, count in zip(hidden, lost, strict=True):
            self._visible[index] -= int(count)
        owner[solid] = len(self.objects)
        x0, y0, x1, y1 = stamp.box
        area = float(stamp.alpha.sum())
        self._solid.append(int(solid.sum()))
        self._visible.append(int(solid.sum()))
        box = (left + x0, top + y0, x1 - x0, y1 - y0)
        self.objects.append(DrawnObject(class_index, box, area))


def draw_image(
    height: int, width: int, rng: np.random.Generator, max_objects: int = 8
) -> tuple[npt.NDArray[np.uint8], list[DrawnObject]]:
    """Gives one image and its annotated shapes.

    Shapes lie fully inside the image. Later shapes may hide earlier ones, but never so that less
    than `MIN_VISIBLE_FRACTION` of an earlier shape is left, so every drawn shape is annotated and
    its box is the full extent of the shape. Longer sides are uniform from 8 pixels to half of the
    image's shorter side.

    Args:
        height: image height, pixels, at least 32.
        width: image width, pixels, at least 32.
        rng: the only source of randomness.
        max_objects: between one and this many shapes are drawn.

    Returns:
        The image, (height, width, 3) uint8 RGB, and its objects in drawing order.
    """
    largest = min(height, width) / 2
    scene = _Scene(_background(height, width, rng))
    _draw_lines(scene.canvas, int(rng.integers(0, 6)), 2, rng)
    wanted = int(rng.integers(1, max_objects + 1))
    for _ in range(wanted):
        size = float(rng.uniform(MIN_SIZE, largest))
        scene.try_add(int(rng.integers(len(SHAPE_CLASSES))), size, rng)
    if rng.random() < 0.3:
        _draw_lines(scene.canvas, 1, 1, rng)
    noise = rng.standard_normal(scene.canvas.shape, dtype=np.float32) * rng.uniform(3, 14)
    pixels = np.clip(scene.canvas + noise, 0, 255).astype(np.uint8)
    return pixels, scene.objects
