"""The drawn-shapes data set: COCO json and PNG files that the project generates itself.

Role in the flow: the data of the quickstart, and of tests that need objects to be found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .shape_drawing import SHAPE_CLASSES, draw_image

logger = logging.getLogger(__name__)

GENERATOR_VERSION = 3
"""Raised whenever the same seed would give other images."""

ANNOTATION_FILE = "annotations.json"
IMAGE_FOLDER = "images"
RECIPE_FILE = "recipe.json"
_SMALLEST_IMAGE = 32


@dataclass(frozen=True)
class ShapesRecipe:
    """What a generated data set is made from; equal recipes give equal files.

    Attributes:
        num_images: number of images.
        seed: seed; image i depends on (seed, i) only, not on `num_images`.
        min_side: smallest image side, pixels.
        max_side: largest image side, pixels; height and width are drawn independently in between.
        classes: class names, ids 1, 2, ... in this order.
        version: `GENERATOR_VERSION`.
    """

    num_images: int
    seed: int
    min_side: int
    max_side: int
    classes: tuple[str, ...] = SHAPE_CLASSES
    version: int = GENERATOR_VERSION

    def digest(self) -> str:
        """Gives the hex sha256 of the recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _make_recipe(num_images: int, seed: int, image_size: int | Sequence[int]) -> ShapesRecipe:
    sides = [image_size] * 2 if isinstance(image_size, int) else [int(v) for v in image_size]
    if len(sides) != 2 or not _SMALLEST_IMAGE <= sides[0] <= sides[1]:
        raise ValueError(
            f"image_size: got {image_size!r}, expected one side in pixels or (smallest, largest), "
            f"each at least {_SMALLEST_IMAGE}"
        )
    if num_images < 1:
        raise ValueError(f"num_images: got {num_images}, expected at least 1")
    if seed < 0:
        raise ValueError(f"seed: got {seed}, expected a number >= 0")
    return ShapesRecipe(num_images, seed, sides[0], sides[1])


def _has_recipe(root: Path, recipe: ShapesRecipe) -> bool:
    """Says whether `root` already holds the data set made from `recipe`."""
    try:
        stored = json.loads((root / RECIPE_FILE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(stored, dict) and stored.get("sha256") == recipe.digest()


def _write_files(folder: Path, recipe: ShapesRecipe) -> None:
    """Writes images, annotations and the recipe into the empty `folder`."""
    (folder / IMAGE_FOLDER).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(recipe.num_images):
        rng = np.random.default_rng([recipe.seed, index])
        height, width = (int(v) for v in rng.integers(recipe.min_side, recipe.max_side + 1, size=2))
        pixels, objects = draw_image(height, width, rng)
        name = f"{index + 1:06d}.png"
        # Noise hardly compresses: the fastest level costs the least time for nearly the same size.
        Image.fromarray(pixels).save(folder / IMAGE_FOLDER / name, compress_level=1)
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for drawn in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": drawn.class_index + 1,
                    "bbox": list(drawn.box_xywh),
                    "area": drawn.area,
                    "iscrowd": 0,
                }
            )
    dataset = {
        "info": {"description": "drawn shapes"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(recipe.classes)],
    }
    (folder / ANNOTATION_FILE).write_text(json.dumps(dataset))
    stored = {**asdict(recipe), "sha256": recipe.digest()}
    (folder / RECIPE_FILE).write_text(json.dumps(stored, indent=2))


def generate_shapes_dataset(
    root: str | os.PathLike[str],
    num_images: int,
    seed: int,
    image_size: int | Sequence[int] = 160,
) -> Path:
    """Gives the folder of a drawn-shapes data set, generated unless it is there already.

    The folder holds `annotations.json` (COCO format), `images/*.png` and `recipe.json`. It is
    written under a temporary name beside `root` and renamed when complete, so an interrupted call
    leaves nothing that looks like a data set. A folder made from another recipe is replaced; a
    folder that is not a drawn-shapes data set is never touched.

    Args:
        root: the folder of this data set (one split).
        num_images: number of images.
        seed: seed; training and validation need different ones.
        image_size: side of the square images in pixels, or (smallest, largest) for sides drawn
            independently, which varies sizes and aspect ratios.

    Returns:
        `root` as a path.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: `root` exists and is not a drawn-shapes data set.
    """
    recipe = _make_recipe(num_images, seed, image_size)
    folder = Path(root)
    if _has_recipe(folder, recipe):
        return folder
    if folder.exists() and not (folder / RECIPE_FILE).exists():
        raise FileExistsError(
            f"root: {folder} exists and holds no {RECIPE_FILE}, so it is not a generated shapes "
            "data set; give another folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    logger.info("Generating %d images of drawn shapes in %s", num_images, folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        _write_files(temporary, recipe)
        _move_into_place(temporary, folder, recipe)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _move_into_place(temporary: Path, folder: Path, recipe: ShapesRecipe) -> None:
    """Renames the finished folder; another process that was faster with the same recipe wins."""
    if folder.exists():
        if _has_recipe(folder, recipe):
            return
        shutil.rmtree(folder)
    try:
        temporary.rename(folder)
    except OSError:
        if not _has_recipe(folder, recipe):
            raise
