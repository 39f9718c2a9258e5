"""The cells of a level over the image, and the ways in which pictures mark them.

Role in the flow: what all pictures of tokens share.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..structures import Size
from .panels import Picture

Mask = npt.NDArray[np.bool_]
Values = TypeVar("Values", bound=np.generic)

# Light, saturated, and apart from each other for colour-blind readers; repeated beyond 6 levels.
_LEVEL_COLOURS = (
    (255, 196, 0),
    (0, 229, 255),
    (255, 105, 180),
    (124, 252, 0),
    (255, 140, 60),
    (200, 160, 255),
)
_DIMMED = 0.32
_GREY_SHARE = 0.75
# Luma of BT.601.
_LUMA = np.array([0.299, 0.587, 0.114])


def level_colour(level: int) -> tuple[int, int, int]:
    """Gives the colour of a level, RGB."""
    return _LEVEL_COLOURS[level % len(_LEVEL_COLOURS)]


def cell_edges(cells: int, length: float) -> npt.NDArray[np.int64]:
    """Gives where the cells of a level begin and end along one axis.

    Cell ``i`` covers ``[i * length / cells, (i + 1) * length / cells)`` of the padded image, which
    is how the encoder places its reference points; edges are rounded to whole pixels.

    Args:
        cells: Cells of the level along the axis.
        length: Length of the padded image along it, in pixels of the picture.

    Returns:
        (cells + 1,) pixels, ascending.
    """
    edges = np.arange(cells + 1) * (length / cells)
    rounded: npt.NDArray[np.int64] = np.floor(edges + 0.5).astype(np.int64)
    return rounded


def cells_as_pixels(
    cells: npt.NDArray[Values], padded_size: tuple[float, float], panel_size: Size
) -> npt.NDArray[Values]:
    """Gives the value of the cell that each pixel of a panel lies in.

    Args:
        cells: (h, w) values of the padded map.
        padded_size: (height, width) of the padded image in pixels of the panel.
        panel_size: (height, width) of the panel, which shows the image without padding.

    Returns:
        (height, width).
    """
    rows = np.repeat(np.arange(cells.shape[0]), np.diff(cell_edges(cells.shape[0], padded_size[0])))
    columns = np.repeat(
        np.arange(cells.shape[1]), np.diff(cell_edges(cells.shape[1], padded_size[1]))
    )
    pixels: npt.NDArray[Values] = cells[rows[: panel_size[0]]][:, columns[: panel_size[1]]]
    return pixels


def greyed(image: Picture, brightness: float = _DIMMED) -> npt.NDArray[np.float64]:
    """Gives the image with little colour and less light, the ground that marks stand out from.

    Args:
        image: (height, width, 3).
        brightness: Share of the light that is left.
    """
    pixels = image.astype(np.float64)
    grey = (pixels @ _LUMA)[..., None]
    dimmed: npt.NDArray[np.float64] = brightness * (_GREY_SHARE * grey + (1 - _GREY_SHARE) * pixels)
    return dimmed


def as_picture(pixels: npt.NDArray[np.floating]) -> Picture:
    """Gives (height, width, 3) values around 0..255 as bytes."""
    picture: Picture = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    return picture


def lit(image: Picture, covered: Mask, colour: tuple[int, int, int]) -> Picture:
    """Gives the image dimmed and greyed except where ``covered``, which gets an outline."""
    marked = np.where(covered[..., None], image, greyed(image))
    marked[_inner_edge(covered)] = colour
    return as_picture(marked)


def _inner_edge(mask: Mask) -> Mask:
    """Gives the pixels of ``mask`` with a neighbour in the picture that is outside it."""
    framed = np.pad(mask, 1, mode="edge")
    inside = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    edge: Mask = mask & ~inside
    return edge


def outlined(panel: Picture, boxes: npt.NDArray[np.floating]) -> Picture:
    """Gives the panel with thin white frames; ``boxes`` (n, 4) xyxy in pixels of the panel."""
    drawn = panel.copy()
    limit = np.array([panel.shape[1], panel.shape[0]] * 2) - 1
    for left, top, right, bottom in np.clip(np.rint(boxes), 0, limit).astype(int):
        drawn[top : bottom + 1, [left, right]] = 255
        drawn[[top, bottom], left : right + 1] = 255
    return drawn
