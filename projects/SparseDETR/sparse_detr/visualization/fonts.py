"""Fonts of the pictures: those that come with matplotlib, and installed ones for other scripts."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib import font_manager
from PIL import ImageFont

_DEFAULT = "DejaVu Sans"
# Common fonts with Chinese, Japanese, Korean, Thai, Devanagari: the default one has none of these.
_OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans Thai",
    "Noto Sans Devanagari",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Arial Unicode MS",
)


@functools.lru_cache(maxsize=1)
def _families() -> tuple[str, ...]:
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return (_DEFAULT, *(name for name in _OTHER_SCRIPTS if name in installed))


@contextmanager
def readable_labels() -> Iterator[None]:
    """Lets matplotlib write any class name inside the block.

    Characters that no installed font has become empty boxes, without a warning for each.
    """
    with matplotlib.rc_context({"font.sans-serif": list(_families())}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@functools.lru_cache(maxsize=8)
def caption_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Gives the font of captions.

    Args:
        size: Height in pixels.
        bold: Whether it is bold.

    Returns:
        The font that comes with matplotlib.
    """
    wanted = font_manager.FontProperties(family=_DEFAULT, weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(wanted), size)
