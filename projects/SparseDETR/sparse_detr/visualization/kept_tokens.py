"""The kept tokens of each level over the image.

Role in the flow: shows what token selection decided; `inspect_image` gives what is drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..inference import InspectedImage
from ..structures import Size, TokenSelection
from .cells import Mask, cells_as_pixels, level_colour, lit, outlined
from .panels import Picture, captioned, display_size, grid, resized, text_panel

_LONG_SIDE = 520


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


def kept_levels(inspected: InspectedImage, layer: int | None = None) -> tuple[KeptLevel, ...]:
    """Gives the kept tokens of each level.

    Args:
        inspected: What the detector did with the image.
        layer: Encoder layer, where layers keep different tokens; None for what any layer keeps.

    Returns:
        L levels, finest first.

    Raises:
        ValueError: The detector keeps all tokens.
    """
    selection = inspected.output.selection
    if selection is None:
        raise ValueError("the detector has no token selection: its encoder updates all tokens")
    tokens = inspected.output.tokens
    num_tokens = tokens.padding_mask.shape[1]
    if layer is None:
        mask = selection.union(num_tokens)
    else:
        mask = selection.for_layer(layer).membership(num_tokens)
    kept = mask[0].cpu().numpy()
    levels = []
    for level, (height, width) in enumerate(tokens.spatial_shapes):
        start = tokens.level_start_index[level]
        rows, columns = (int(value) for value in tokens.valid_sizes[0, level])
        cells = kept[start : start + height * width].reshape(height, width)
        levels.append(KeptLevel(inspected.strides[level], cells, rows * columns))
    return tuple(levels)


def num_pooled(selection: TokenSelection) -> int:
    """Gives the number of rows that tokens that are not kept are pooled into; 0 without these."""
    if selection.sequence is None:
        return 0
    return selection.sequence.features.shape[1] - selection.layers[0].kept_indices.shape[1]


def draw_kept_tokens(
    image: Picture,
    levels: Sequence[KeptLevel],
    padded_size: Size,
    boxes_xyxy: npt.NDArray[np.floating] | None = None,
    pooled_rows: int = 0,
) -> Picture:
    """Gives a picture of the image and, for each level, the image with the kept tokens lit up.

    Args:
        image: The image as the network saw it, without padding.
        levels: From :func:`kept_levels`.
        padded_size: (height, width) of the padded image, pixels of ``image``.
        boxes_xyxy: (n, 4) boxes to outline in all panels, pixels of ``image``; None for none.
        pooled_rows: Rows that the other tokens are pooled into; 0 where they are passed on.

    Returns:
        The picture: image, one panel per level, and a table.
    """
    size = display_size(image.shape[0], image.shape[1], _LONG_SIDE, _LONG_SIDE)
    scale = (size[0] / image.shape[0], size[1] / image.shape[1])
    padded = (padded_size[0] * scale[0], padded_size[1] * scale[1])
    shown = resized(image, size)
    boxes = np.zeros((0, 4)) if boxes_xyxy is None else boxes_xyxy * np.array([*scale[::-1]] * 2)
    panels = [captioned(outlined(shown, boxes), "Image")]
    for number, level in enumerate(levels):
        covered = cells_as_pixels(level.kept, padded, size)
        marked = lit(shown, covered, level_colour(number))
        panels.append(captioned(outlined(marked, boxes), _level_caption(number, level)))
    panels.append(text_panel(size, *_summary(levels, len(boxes) > 0, pooled_rows)))
    return grid(panels, columns=-(-len(panels) // 2))


def _level_caption(number: int, level: KeptLevel) -> str:
    share = level.num_kept / max(1, level.num_tokens)
    counts = f"{level.num_kept:,} of {level.num_tokens:,} kept ({share:.0%})"
    return f"Level {number}, stride {level.stride}: {counts}"


def _summary(
    levels: Sequence[KeptLevel], with_boxes: bool, pooled_rows: int
) -> tuple[str, list[str]]:
    """Gives title and rows of the table."""
    total = sum(level.num_tokens for level in levels)
    kept = sum(level.num_kept for level in levels)
    rows = [
        f"Kept: {kept:,} of {total:,} ({kept / max(1, total):.1%})",
        "",
        "Bright, outlined: kept, updated by the encoder",
        f"Grey: pooled into {pooled_rows} rows"
        if pooled_rows
        else "Grey: passed on as the backbone gave it",
        *(["White frames: ground truth"] if with_boxes else []),
        "",
        "Share of the kept tokens by level",
    ]
    rows += [
        f"    level {number} (stride {level.stride}): {level.num_kept / max(1, kept):.1%}"
        for number, level in enumerate(levels)
    ]
    return "Tokens of all levels", rows
