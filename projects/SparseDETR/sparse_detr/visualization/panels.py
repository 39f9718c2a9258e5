"""Panels with captions, put side by side into one picture.

Role in the flow: the frame that every picture of the package shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .fonts import caption_font

Picture = npt.NDArray[np.uint8]
"""(height, width, 3), RGB."""

MARGIN = 12
CAPTION_HEIGHT = 30
_FONT_SIZE = 17
_BACKGROUND = (255, 255, 255)
_INK = (25, 28, 33)
_SOFT_INK = (95, 102, 112)
_SHORTEST_LONG_SIDE = 640
_LONGEST_LONG_SIDE = 1000


def display_size(
    height: int,
    width: int,
    smallest: int = _SHORTEST_LONG_SIDE,
    largest: int = _LONGEST_LONG_SIDE,
) -> tuple[int, int]:
    """Gives the size at which an image is shown, so that labels fit and pictures stay handy.

    Args:
        height: Height of the image, pixels.
        width: Width of the image, pixels.
        smallest: Least length of the longer side, pixels.
        largest: Greatest length of the longer side, pixels.

    Returns:
        (height, width), each at least 1, in the image's own aspect ratio.
    """
    longer = max(height, width)
    scale = min(max(longer, smallest), largest) / longer
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(image: Picture, size: tuple[int, int]) -> Picture:
    """Gives the image at ``size`` (height, width)."""
    if image.shape[:2] == size:
        return image
    scaled = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(scaled)


def captioned(panel: Picture, caption: str) -> Picture:
    """Gives the panel with a caption above it, as wide as before.

    Args:
        panel: The panel.
        caption: One line; it is shortened where the panel is too narrow.

    Returns:
        A picture `CAPTION_HEIGHT` pixels higher.
    """
    height, width = panel.shape[:2]
    framed = Image.new("RGB", (width, height + CAPTION_HEIGHT), _BACKGROUND)
    framed.paste(Image.fromarray(panel), (0, CAPTION_HEIGHT))
    size = _FONT_SIZE
    while size > 11 and caption_font(size).getlength(caption) > width:
        size -= 1
    font = caption_font(size)
    while caption and font.getlength(caption) > width:
        caption = caption[:-2].rstrip() + "…" if len(caption) > 2 else ""
    draw = ImageDraw.Draw(framed)
    draw.text((0, CAPTION_HEIGHT // 2), caption, fill=_INK, font=font, anchor="lm")
    return np.asarray(framed)


def text_panel(size: tuple[int, int], title: str, rows: Sequence[str]) -> Picture:
    """Gives a panel with a title and rows of text.

    Args:
        size: (height, width) of the panel, pixels.
        title: First row, in bold.
        rows: The others; "" leaves a gap.

    Returns:
        The panel; its font is as large as the panel allows.
    """
    height, width = size
    panel = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(panel)
    font_size = _FONT_SIZE
    while font_size > 8 and (
        max(caption_font(font_size).getlength(row) for row in [title, *rows]) > width * 0.95
        or (len(rows) + 2) * font_size * 1.5 > height
    ):
        font_size -= 1
    draw.text((0, 0), title, fill=_INK, font=caption_font(font_size, bold=True))
    for number, row in enumerate(rows, start=1):
        draw.text(
            (0, number * font_size * 1.5 + 6), row, fill=_SOFT_INK, font=caption_font(font_size)
        )
    return np.asarray(panel)


def grid(panels: Sequence[Picture], columns: int) -> Picture:
    """Gives one picture of panels in rows, with a margin around each.

    Args:
        panels: At least one; panels of a column may differ in size and are aligned at the top left.
        columns: Panels per row.

    Returns:
        The picture.
    """
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    widths = [max(row[i].shape[1] for row in rows if i < len(row)) for i in range(len(rows[0]))]
    heights = [max(panel.shape[0] for panel in row) for row in rows]
    total = (sum(heights) + MARGIN * (len(rows) + 1), sum(widths) + MARGIN * (len(widths) + 1))
    picture = np.full((*total, 3), _BACKGROUND, dtype=np.uint8)
    top = MARGIN
    for row, row_height in zip(rows, heights, strict=True):
        left = MARGIN
        for panel, width in zip(row, widths, strict=False):
            picture[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
            left += width + MARGIN
        top += row_height + MARGIN
    return picture


def stacked(pictures: Sequence[Picture]) -> Picture:
    """Gives pictures below each other, on the ground of the widest.

    Args:
        pictures: At least one; each with its own margin.

    Returns:
        The picture.
    """
    width = max(picture.shape[1] for picture in pictures)
    wide = [
        np.pad(
            picture,
            ((0, 0), (0, width - picture.shape[1]), (0, 0)),
            constant_values=_BACKGROUND[0],
        )
        for picture in pictures
    ]
    return np.concatenate(wide)
