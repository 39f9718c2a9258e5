"""The figures of one image, and their means over a data set.

Role in the flow: the sparsity evaluator reduces each image to a record as it goes by, gathers the
records of all processes and takes the means. Records are small: no map outlives its image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..structures import Size
from .objects import OBJECT_SIZES, Bools, ObjectBoxes, tokens_on_objects
from .token_use import TokenUse


@dataclass(frozen=True)
class KeptObject:
    """What became of the tokens of one object.

    Attributes:
        size: Index into :data:`OBJECT_SIZES`.
        share: Of the tokens on the object, those that were kept.
    """

    size: int
    share: float


@dataclass(frozen=True)
class ImageSparsity:
    """The figures of one image. Those of token selection are empty where there is none.

    Attributes:
        image_id: Of the data set.
        image_size: (height, width) of the network's input, pixels.
        attention: L shares of the decoder's attention that a level received.
        corr: Share of the attention on kept tokens; NaN where there is no attention.
        corr_levels: The same within each of the L levels.
        tokens: L numbers of tokens.
        kept: L numbers of tokens that any encoder layer updates.
        kept_by_layer: Tokens that each encoder layer updates; one entry where all are alike.
        objects: The objects.
    """

    image_id: Any
    image_size: Size
    attention: tuple[float, ...]
    corr: float = math.nan
    corr_levels: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    kept_by_layer: tuple[int, ...] = ()
    objects: tuple[KeptObject, ...] = ()

    @staticmethod
    def of(image_id: Any, use: TokenUse, objects: ObjectBoxes) -> ImageSparsity:
        """The figures of an image.

        Args:
            image_id: Of the data set.
            use: What the detector did with its tokens.
            objects: Its annotated objects.
        """
        ends = np.cumsum([rows * columns for rows, columns in use.level_sizes])
        attention = use.attention.numpy().astype(np.float64)
        received = _by_level(attention, ends)
        with np.errstate(invalid="ignore"):  # without attention: NaN
            shares = tuple((received / received.sum()).tolist())
            if use.kept is None:
                return ImageSparsity(image_id, use.image_size, shares)
            kept: Bools = use.kept.any(0).numpy()
            hit = _by_level(attention * kept, ends)
            corr, corr_levels = hit.sum() / received.sum(), hit / received
        return ImageSparsity(
            image_id=image_id,
            image_size=use.image_size,
            attention=shares,
            corr=float(corr),
            corr_levels=tuple(corr_levels.tolist()),
            tokens=tuple(np.diff(ends, prepend=0).tolist()),
            kept=tuple(_by_level(kept, ends).astype(int).tolist()),
            kept_by_layer=tuple(use.kept.sum(1).tolist()),
            objects=_kept_objects(kept, use, objects),
        )


def _by_level(values: npt.NDArray[Any], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Sum over the tokens of each level; ``ends`` are the indices after the last of each."""
    starts = [0, *ends[:-1].tolist()]
    pairs = zip(starts, ends.tolist(), strict=True)
    return np.array([values[start:end].sum() for start, end in pairs], dtype=np.float64)


def _kept_objects(kept: Bools, use: TokenUse, objects: ObjectBoxes) -> tuple[KeptObject, ...]:
    if not len(objects.areas):
        return ()
    tokens = tokens_on_objects(objects, use.level_sizes, use.original_size)
    shares = (tokens & kept).sum(1) / tokens.sum(1)
    pairs = zip(objects.size_indices.tolist(), shares.tolist(), strict=True)
    return tuple(KeptObject(size, share) for size, share in pairs)


def mean(values: Iterable[float]) -> float:
    """Gives the mean of the values that are numbers; NaN if there is none.

    Rounded once: the order of the values does not matter.
    """
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


class _HasId(Protocol):
    @property
    def image_id(self) -> Any:
        """Id of the image in the data set."""


_Entry = TypeVar("_Entry", bound=_HasId)


def plain_id(image_id: Any) -> Any:
    """Gives an image id as Python's own number or text, also where it is one of numpy or torch."""
    return image_id.item() if hasattr(image_id, "item") else image_id


def each_once(entries: Iterable[_Entry]) -> list[_Entry]:
    """Gives one entry of each ``image_id``, in the order of the ids' text.

    The number 7 and the text "7" are two ids; 7 of Python and of numpy are one.
    """
    by_id = {json.dumps(plain_id(entry.image_id)): entry for entry in entries}
    return [by_id[key] for key in sorted(by_id)]


def without_repetitions(images: Iterable[ImageSparsity]) -> tuple[ImageSparsity, ...]:
    """Gives each image once, in the order of the ids' text: the same for any order of images."""
    return tuple(each_once(images))


def dataset_figures(records: Sequence[ImageSparsity]) -> dict[str, float]:
    """Gives the figures of a data set: means over its images, and over its objects.

    Args:
        records: At least one image; each once.

    Returns:
        Figure by name; shares are in 0..1, and NaN where nothing gives one. Without token
        selection only ``attention_level{l}``.
    """
    figures: dict[str, float] = {}
    levels = range(len(records[0].attention))
    if records[0].kept:
        figures["corr"] = mean(r.corr for r in records)
        for level in levels:
            figures[f"corr_level{level}"] = mean(r.corr_levels[level] for r in records)
        figures["keep_ratio"] = mean(_share(sum(r.kept), sum(r.tokens)) for r in records)
        for level in levels:
            shares = (_share(r.kept[level], r.tokens[level]) for r in records)
            figures[f"keep_ratio_level{level}"] = mean(shares)
        figures.update(_layer_figures(records))
        figures["kept_tokens"] = mean(sum(r.kept) for r in records)
        for level in levels:
            figures[f"kept_tokens_level{level}"] = mean(r.kept[level] for r in records)
        figures.update(_object_figures([o for r in records for o in r.objects]))
    for level in levels:
        figures[f"attention_level{level}"] = mean(r.attention[level] for r in records)
    return figures


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _layer_figures(records: Sequence[ImageSparsity]) -> dict[str, float]:
    """Keeping ratio of each encoder layer, where they differ."""
    layers = range(len(records[0].kept_by_layer))
    if len(layers) < 2:
        return {}
    return {
        f"keep_ratio_layer{layer}": mean(
            _share(r.kept_by_layer[layer], sum(r.tokens)) for r in records
        )
        for layer in layers
    }


def _object_figures(objects: Sequence[KeptObject]) -> dict[str, float]:
    """Share of the objects with kept tokens, and mean share of their tokens that were kept."""
    figures = {}
    for suffix, size in (("", None), *((f"_{name}", i) for i, name in enumerate(OBJECT_SIZES))):
        shares = [o.share for o in objects if size is None or o.size == size]
        figures[f"objects_with_kept_tokens{suffix}"] = mean(np.sign(shares).tolist())
        figures[f"object_tokens_kept{suffix}"] = mean(shares)
    return figures
