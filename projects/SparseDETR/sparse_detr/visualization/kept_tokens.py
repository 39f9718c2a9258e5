"""The kept tokens of each level over the image.

Role in the flow: shows what token selection decided; `inspect_image` gives what is drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..inference import InspectedImage
from ..structures import Size
from .panels import Picture, captioned, display_size, grid, resized, text_panel

Mask = npt.NDArray[np.bool_]

_LONG_SIDE = 520
_DIMMED = 0.32
_GREY_SHARE = 0.75
# Luma of BT.601.
_LUMA = np.array([0.299, 0.587, 0.114])
# Light, saturated, and apart from each other for colour-blind readers; repeated beyond 6 levels.
_LEVEL_COLOURS = (
    (255, 196, 0),
    (0, 229, 255),
    (255, 105, 180),
    (124, 252, 0),
    (255, 140, 60),
    (200, 160, 255),
)


@dataclass(frozen=True)
class KeptLevel:
    """The kept tokens of one level of one image.

    Attributes:
        stride: Nominal pixels per cell.
        kept: (h, w) bool over the cells of the padded map, True on the image's own kept tokens.
        num_tokens: Cells that the image covers.
    """

    stride: int
    kept: Mask
    num_tokens: int

    @property
    def num_kept(self) -> int:
        """Number of kept tokens."""
        return int(self.kept.sum())


def kept_levels(inspected: InspectedImage, layer: int = 0) -> tuple[KeptLevel, ...]:
    """Gives the kept tokens of each level.

    Args:
        inspected: What the detector did with the image.
        layer: Encoder layer, where layers keep different tokens.

    Returns:
        L levels, finest first.

    Raises:
        ValueError: The detector keeps all tokens.
    """
    selection = inspected.output.selection
    if selection is None:
        raise ValueError("the detector has no token selection: its encoder updates all tokens")
    tokens = inspected.output.tokens
    kept = selection.for_layer(layer).membership(tokens.padding_mask.shape[1])[0].cpu().numpy()
    levels = []
    for level, (height, width) in enumerate(tokens.spatial_shapes):
        start = tokens.level_start_index[level]
        rows, columns = (int(value) for value in tokens.valid_sizes[0, level])
        cells = kept[start : start + height * width].reshape(height, width)
        levels.append(KeptLevel(inspected.strides[level], cells, rows * columns))
    return tuple(levels)


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


def covered_pixels(kept: Mask, padded_size: tuple[float, float], panel_size: Size) -> Mask:
    """Gives the pixels of a panel that kept tokens cover.

    Args:
        kept: (h, w) cells of the padded map.
        padded_size: (height, width) of the padded image in pixels of the panel.
        panel_size: (height, width) of the panel, which shows the image without padding.

    Returns:
        (height, width) bool.
    """
    rows = np.repeat(np.arange(kept.shape[0]), np.diff(cell_edges(kept.shape[0], padded_size[0])))
    columns = np.repeat(
        np.arange(kept.shape[1]), np.diff(cell_edges(kept.shape[1], padded_size[1]))
    )
    covered: Mask = kept[rows[: panel_size[0]]][:, columns[: panel_size[1]]]
    return covered


def draw_kept_tokens(
    image: Picture,
    levels: Sequence[KeptLevel],
    padded_size: Size,
    boxes_xyxy: npt.NDArray[np.floating] | None = None,
) -> Picture:
    """Gives a picture of the image and, for each level, the image with the kept tokens lit up.

    Args:
        image: The image as the network saw it, without padding.
        levels: From :func:`kept_levels`.
        padded_size: (height, width) of the padded image, pixels of ``image``.
        boxes_xyxy: (n, 4) boxes to outline in all panels, pixels of ``image``; None for none.

    Returns:
        The picture: image, one panel per level, and a table.
    """
    size = display_size(image.shape[0], image.shape[1], _LONG_SIDE, _LONG_SIDE)
    scale = (size[0] / image.shape[0], size[1] / image.shape[1])
    padded = (padded_size[0] * scale[0], padded_size[1] * scale[1])
    shown = resized(image, size)
    boxes = np.zeros((0, 4)) if boxes_xyxy is None else boxes_xyxy * np.array([*scale[::-1]] * 2)
    panels = [captioned(_outlined(shown, boxes), "Image")]
    for number, level in enumerate(levels):
        covered = covered_pixels(level.kept, padded, size)
        lit = _lit(shown, covered, _LEVEL_COLOURS[number % len(_LEVEL_COLOURS)])
        panels.append(captioned(_outlined(lit, boxes), _level_caption(number, level)))
    panels.append(text_panel(size, *_summary(levels, len(boxes) > 0)))
    return grid(panels, columns=-(-len(panels) // 2))


def _level_caption(number: int, level: KeptLevel) -> str:
    share = level.num_kept / max(1, level.num_tokens)
    counts = f"{level.num_kept:,} of {level.num_tokens:,} kept ({share:.0%})"
    return f"Level {number}, stride {level.stride}: {counts}"


def _summary(levels: Sequence[KeptLevel], with_boxes: bool) -> tuple[str, list[str]]:
    """Gives title and rows of the table."""
    total = sum(level.num_tokens for level in levels)
    kept = sum(level.num_kept for level in levels)
    rows = [
        f"Kept: {kept:,} of {total:,} ({kept / max(1, total):.1%})",
        "",
        "Bright, outlined: kept, updated by the encoder",
        "Grey: passed on as the backbone gave it",
        *(["White frames: ground truth"] if with_boxes else []),
        "",
        "Share of the kept tokens by level",
    ]
    rows += [
        f"    level {number} (stride {level.stride}): {level.num_kept / max(1, kept):.1%}"
        for number, level in enumerate(levels)
    ]
    return "Tokens of all levels", rows


def _lit(image: Picture, covered: Mask, colour: tuple[int, int, int]) -> Picture:
    """Gives the image dimmed and greyed except where ``covered``, which gets an outline."""
    pixels = image.astype(np.float64)
    grey = (pixels @ _LUMA)[..., None]
    dimmed = _DIMMED * (_GREY_SHARE * grey + (1 - _GREY_SHARE) * pixels)
    lit = np.where(covered[..., None], pixels, dimmed)
    lit[_inner_edge(covered)] = colour
    return np.clip(lit + 0.5, 0, 255).astype(np.uint8)


def _inner_edge(mask: Mask) -> Mask:
    """Gives the pixels of ``mask`` with a neighbour in the picture that is outside it."""
    framed = np.pad(mask, 1, mode="edge")
    inside = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    edge: Mask = mask & ~inside
    return edge


def _outlined(panel: Picture, boxes: npt.NDArray[np.floating]) -> Picture:
    """Gives the panel with thin white frames; ``boxes`` (n, 4) xyxy in pixels of the panel."""
    drawn = panel.copy()
    limit = np.array([panel.shape[1], panel.shape[0]] * 2) - 1
    for left, top, right, bottom in np.clip(np.rint(boxes), 0, limit).astype(int):
        drawn[top : bottom + 1, [left, right]] = 255
        drawn[[top, bottom], left : right + 1] = 255
    return drawn
