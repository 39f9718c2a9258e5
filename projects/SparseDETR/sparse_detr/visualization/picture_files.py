"""Names and files of the pictures of many images."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from .panels import Picture


def unused_name(stem: str, used: set[str]) -> str:
    """Gives ``stem``, with a number behind it where an earlier image has it already.

    Args:
        stem: Wanted.
        used: Names of the earlier images; the new one is added.
    """
    name, number = stem, 2
    while name in used:
        name, number = f"{stem}_{number}", number + 1
    used.add(name)
    return name


def save_picture(picture: Picture, path: Path) -> Path:
    """Gives ``path`` after writing the picture there."""
    Image.fromarray(picture).save(path)
    return path
