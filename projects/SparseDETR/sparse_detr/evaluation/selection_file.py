"""The kept tokens of a whole data set in one small file, to be compared with another model's.

Role in the flow: written by the sparsity evaluator, read by the comparison of two selections. A
file holds one bit per token and the objects of the images, so a comparison needs neither model nor
data set.
"""

from __future__ import annotations

import json
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine.checkpoint_file import replacing
from ..structures import Size
from .objects import Bools, ObjectBoxes

_FORMAT = "sparse_detr kept tokens, version 1"
# What the readers of archives, of their compression and of arrays raise on damaged bytes.
_UNREADABLE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class StoredSelection:
    """The kept tokens of one image.

    Attributes:
        image_id: Of the data set.
        file_name: Of the image; empty where unknown.
        level_sizes: L pairs (rows, columns) of cells that the image covers.
        original_size: (height, width) of the original image, pixels.
        packed: (ceil(N / 8),) one bit per token, set on those that any encoder layer updates; a
            data set of them fits into memory.
        objects: The annotated objects.
    """

    image_id: Any
    file_name: str
    level_sizes: tuple[Size, ...]
    original_size: Size
    packed: npt.NDArray[np.uint8]
    objects: ObjectBoxes

    @classmethod
    def of(
        cls,
        image_id: Any,
        file_name: str,
        level_sizes: tuple[Size, ...],
        original_size: Size,
        kept: Bools,
        objects: ObjectBoxes,
    ) -> StoredSelection:
        """Gives the kept tokens of an image from a mask; see the attributes.

        Args:
            image_id: Of the data set.
            file_name: Of the image.
            level_sizes: L pairs (rows, columns).
            original_size: (height, width), pixels.
            kept: (N,) True on tokens that any encoder layer updates.
            objects: The annotated objects.
        """
        packed = np.packbits(kept)
        return cls(image_id, file_name, level_sizes, original_size, packed, objects)

    @property
    def kept(self) -> Bools:
        """(N,) True on tokens that any encoder layer updates."""
        num_tokens = sum(rows * columns for rows, columns in self.level_sizes)
        return np.unpackbits(self.packed, count=num_tokens).astype(bool)


def save_selections(selections: Iterable[StoredSelection], path: str | os.PathLike[str]) -> Path:
    """Writes the kept tokens of images; a file that is there is replaced as a whole.

    Args:
        selections: One per image, all with the same number of levels.
        path: The file, by custom ending in ``.npz``.

    Returns:
        ``path``.
    """
    entries = list(selections)
    boxes = [entry.objects.boxes_xyxy for entry in entries]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as unfinished, unfinished.open("wb") as stream:
        np.savez_compressed(
            stream,
            format=np.array(_FORMAT),
            image_ids=np.array([json.dumps(entry.image_id) for entry in entries], dtype=np.str_),
            file_names=np.array([entry.file_name for entry in entries], dtype=np.str_),
            level_sizes=np.array([entry.level_sizes for entry in entries], dtype=np.int32),
            original_sizes=np.array([entry.original_size for entry in entries], dtype=np.int32),
            kept=np.concatenate([np.zeros(0, np.uint8), *(entry.packed for entry in entries)]),
            object_counts=np.array([len(of_image) for of_image in boxes], dtype=np.int32),
            boxes_xyxy=np.concatenate([np.zeros((0, 4)), *boxes]),
            areas=np.concatenate([np.zeros(0), *(entry.objects.areas for entry in entries)]),
        )
    return target


def load_selections(path: str | os.PathLike[str]) -> dict[Any, StoredSelection]:
    """Gives the kept tokens that a file holds, by image id.

    Args:
        path: As :func:`save_selections` wrote it. Nothing in it is executed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist")
    try:
        with np.load(file, allow_pickle=False) as content:
            if str(content["format"]) != _FORMAT:
                raise ValueError(f"its format is {str(content['format'])!r}")
            return _unpacked({name: content[name] for name in content.files})
    except _UNREADABLE as error:
        raise ValueError(
            f"{file} cannot be read as kept tokens ({type(error).__name__}: {error}); expected a "
            "file that an evaluation with dataloader.sparsity_evaluator.store_selections=true wrote"
        ) from error


def _unpacked(content: dict[str, Any]) -> dict[Any, StoredSelection]:
    found: dict[Any, StoredSelection] = {}
    bits, rows = 0, 0
    for index, text in enumerate(content["image_ids"]):
        sizes = tuple((int(h), int(w)) for h, w in content["level_sizes"][index])
        num_tokens = sum(h * w for h, w in sizes)
        num_bytes, count = -(-num_tokens // 8), int(content["object_counts"][index])
        packed = content["kept"][bits : bits + num_bytes]
        if len(packed) != num_bytes:
            raise ValueError("it is cut short")
        height, width = (int(side) for side in content["original_sizes"][index])
        image_id = json.loads(str(text))
        found[image_id] = StoredSelection(
            image_id=image_id,
            file_name=str(content["file_names"][index]),
            level_sizes=sizes,
            original_size=(height, width),
            packed=packed.astype(np.uint8, casting="safe"),
            objects=ObjectBoxes(
                content["boxes_xyxy"][rows : rows + count], content["areas"][rows : rows + count]
            ),
        )
        bits, rows = bits + num_bytes, rows + count
    return found
