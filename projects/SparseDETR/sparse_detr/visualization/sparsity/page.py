"""One self-contained HTML page with the sparsity of all images of a run.

Role in the flow: page data -> **page**. Pictures, numbers, style and script are in the file; it
opens without a network, and its content security policy forbids it one.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import matplotlib
import numpy as np

from ..cells import level_colour
from .page_data import POINT_UNIT, WEIGHT_UNIT
from .token_panels import ATTENDED_ONLY, BOTH, HEAT_COLOURS, KEPT_ONLY

_FOLDER = "page_files"
_SCRIPTS = ("token_numbers.js", "token_drawing.js", "controls.js")
_MOST_LEVELS = 16


def sparsity_page(
    title: str, facts: Mapping[str, str], images: Sequence[Mapping[str, Any]], threshold: float
) -> str:
    """Gives the page.

    Args:
        title: Shown as heading, as text: markup in it has no effect.
        facts: Shown below it, name and value: config, weights.
        images: From :func:`page_data`, at least one.
        threshold: Score above which boxes are shown at first.

    Returns:
        HTML, the same for the same input.
    """
    data = {
        "title": title,
        "facts": dict(facts),
        "threshold": threshold,
        "pointUnit": POINT_UNIT,
        "weightUnit": WEIGHT_UNIT,
        "heatColours": _heat_colours(),
        "levelColours": [_hex(level_colour(level)) for level in range(_MOST_LEVELS)],
        "markColours": {
            "both": _hex(BOTH),
            "keptOnly": _hex(KEPT_ONLY),
            "attendedOnly": _hex(ATTENDED_ONLY),
        },
        "images": list(images),
    }
    style = _page_file("page.css")
    script = "\n".join(_page_file(name) for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": html.escape(policy),
        "TITLE": html.escape(title),
        "STYLE": style,
        "DATA": json_for_html(data),
        "SCRIPT": script,
    }
    # In one pass over the template: what is filled in is never searched for placeholders.
    pieces = _page_file("page.html").split("@@")
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def json_for_html(data: Any) -> str:
    """Gives json that cannot end the script element that holds it, nor start another."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _page_file(name: str) -> str:
    return files(__package__).joinpath(_FOLDER, name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Gives the source expression that allows exactly this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _heat_colours() -> str:
    """Gives 256 RGB colours as base64, dark to light."""
    colours = matplotlib.colormaps[HEAT_COLOURS](np.linspace(0, 1, 256))[:, :3] * 255
    return base64.b64encode(np.rint(colours).astype(np.uint8).tobytes()).decode("ascii")
