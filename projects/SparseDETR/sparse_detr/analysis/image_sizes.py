"""Image sizes: from the command line, from a file, and after the resize of the evaluation."""

from __future__ import annotations

import argparse
import csv
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from detectron2.config import instantiate
from detectron2.data.transforms import AugInput, AugmentationList

from ..structures import Size


def image_size(text: str) -> Size:
    """Gives (height, width) from a text like "800x1066".

    Raises:
        argparse.ArgumentTypeError: It is not two positive integers.
    """
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected HEIGHTxWIDTH such as 800x1066")
    return int(match[1]), int(match[2])


def size_text(size: Size) -> str:
    """Gives "800x1066" from (height, width)."""
    return f"{size[0]}x{size[1]}"


def read_image_sizes(file: str | os.PathLike[str]) -> list[Size]:
    """Gives the (height, width) of the images that a csv file lists.

    Args:
        file: Csv file with a header that has the columns ``height`` and ``width``; others are
            ignored.

    Raises:
        ValueError: The file has no such columns, no rows, or a row without a size.
        OSError: The file cannot be read.
    """
    with open(file, encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        columns = list(rows.fieldnames or ())
        if not {"height", "width"} <= set(columns):
            raise ValueError(
                f"{os.fspath(file)} must have the columns height and width, got {columns}"
            )
        sizes = []
        for row in rows:
            try:
                sizes.append(image_size(f"{row['height']}x{row['width']}".replace(" ", "")))
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"{os.fspath(file)}, line {rows.line_num}: {error}") from error
    if not sizes:
        raise ValueError(f"{os.fspath(file)} lists no image")
    return sizes


def evaluation_resize(config: Any) -> Callable[[Size], Size]:
    """Gives the function from the size of an image to that of the network's input.

    Args:
        config: Config tree with the augmentations of the evaluation,
            ``dataloader.test.mapper.augmentations``.

    Raises:
        ValueError: The config has none.
    """
    try:
        nodes = config.dataloader.test.mapper.augmentations
    except AttributeError:
        nodes = None
    if nodes is None:
        raise ValueError(
            "the config has no dataloader.test.mapper.augmentations, so images cannot be resized "
            "as it says; give sizes of the network's input as HEIGHTxWIDTH"
        )
    augmentations = AugmentationList(list(instantiate(nodes)))

    def resize(size: Size) -> Size:
        image = AugInput(np.zeros((*size, 3), dtype=np.uint8))
        augmentations(image)
        return int(image.image.shape[0]), int(image.image.shape[1])

    return resize
