"""How the kept tokens of two models, or of two checkpoints of one, differ.

Role in the flow: after two evaluations that stored their kept tokens; needs neither model nor data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .image_sparsity import mean
from .objects import OBJECT_SIZES, Bools, tokens_on_objects
from .selection_file import StoredSelection


@dataclass(frozen=True)
class Overlap:
    """How far two selections agree on some tokens. NaN where a selection keeps none of them.

    Attributes:
        iou: Tokens kept by both, as a share of those kept by either.
        by_chance: What ``iou`` would be if the second kept as many tokens at random places.
        first_in_second: Share of the first's kept tokens that the second keeps too.
        second_in_first: Share of the second's kept tokens that the first keeps too.
    """

    iou: float
    by_chance: float
    first_in_second: float
    second_in_first: float

    @staticmethod
    def of(first: Bools, second: Bools) -> Overlap:
        """The overlap of two selections among the same tokens, (n,) each."""
        a, b, both = (int(kept.sum()) for kept in (first, second, first & second))
        chance = a * b / len(first) if len(first) else math.nan
        return Overlap(
            _ratio(both, a + b - both),
            _ratio(chance, a + b - chance),
            _ratio(both, a),
            _ratio(both, b),
        )

    @staticmethod
    def mean_of(overlaps: Sequence[Overlap]) -> Overlap:
        """The mean of each figure over those that have it."""
        return Overlap(
            mean(o.iou for o in overlaps),
            mean(o.by_chance for o in overlaps),
            mean(o.first_in_second for o in overlaps),
            mean(o.second_in_first for o in overlaps),
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


@dataclass(frozen=True)
class ObjectAgreement:
    """On how many objects two selections keep tokens.

    Attributes:
        overlap: Among the tokens on an object, mean over the objects.
        both: Share of the objects with kept tokens of both selections.
        first_only: Share with kept tokens of the first alone.
        second_only: Share with kept tokens of the second alone.
        neither: Share without any.
        count: Objects.
    """

    overlap: Overlap
    both: float
    first_only: float
    second_only: float
    neither: float
    count: int


@dataclass(frozen=True)
class ImageDifference:
    """Overlap on one image.

    Attributes:
        image_id: Of the data set.
        file_name: Of the image.
        iou: See :class:`Overlap`.
        kept: Numbers of tokens that the first and the second keep.
    """

    image_id: Any
    file_name: str
    iou: float
    kept: tuple[int, int]


@dataclass(frozen=True)
class SelectionComparison:
    """Two selections over a data set.

    Attributes:
        overall: All tokens, mean over the images.
        levels: L entries, the tokens of each level.
        objects: By object size, "all" first.
        images: Every image, those that differ most first.
        left_out: Images that only one of the two holds.
    """

    overall: Overlap
    levels: tuple[Overlap, ...]
    objects: dict[str, ObjectAgreement]
    images: tuple[ImageDifference, ...]
    left_out: int

    def record(self, num_images: int) -> dict[str, Any]:
        """Everything as plain data, with the ``num_images`` that differ most; NaN becomes None."""
        content = {
            "num_images": len(self.images),
            "left_out": self.left_out,
            "overall": asdict(self.overall),
            "levels": [asdict(level) for level in self.levels],
            "objects": {size: asdict(found) for size, found in self.objects.items()},
            "most_different": [asdict(image) for image in self.images[:num_images]],
        }
        plain = _without_nan(content)
        assert isinstance(plain, dict)
        return plain


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def compare_selections(
    first: Mapping[Any, StoredSelection], second: Mapping[Any, StoredSelection]
) -> SelectionComparison:
    """Gives the overlap of two selections on the images that both hold.

    Args:
        first: By image id, as :func:`~.selection_file.load_selections` gives them.
        second: The same of another model.

    Raises:
        ValueError: They share no image, or an image has other levels in one than in the other.
    """
    shared = sorted(first.keys() & second.keys(), key=str)
    if not shared:
        raise ValueError(
            "the two selections share no image: they are of different data sets, or of different "
            "parts of one"
        )
    overall, images = [], []
    levels: list[list[Overlap]] = []
    objects: list[tuple[int, Overlap, bool, bool]] = []
    for image_id in shared:
        one, other = first[image_id], second[image_id]
        _check_same_tokens(one, other)
        overlap = Overlap.of(one.kept, other.kept)
        overall.append(overlap)
        kept = (int(one.kept.sum()), int(other.kept.sum()))
        images.append(ImageDifference(image_id, one.file_name, overlap.iou, kept))
        levels.append(_by_level(one, other))
        objects += _by_object(one, other)
    images.sort(key=lambda image: image.iou)
    return SelectionComparison(
        Overlap.mean_of(overall),
        tuple(Overlap.mean_of(of_level) for of_level in zip(*levels, strict=True)),
        {"all": _agreement(objects, None)}
        | {name: _agreement(objects, index) for index, name in enumerate(OBJECT_SIZES)},
        tuple(images),
        len(first.keys() ^ second.keys()),
    )


def _check_same_tokens(one: StoredSelection, other: StoredSelection) -> None:
    if one.level_sizes != other.level_sizes:
        raise ValueError(
            f"image {one.image_id} has levels {one.level_sizes} in the first selection and "
            f"{other.level_sizes} in the second; both models have to see the images at the same "
            "size and with the same strides"
        )


def _by_level(one: StoredSelection, other: StoredSelection) -> list[Overlap]:
    ends = np.cumsum([rows * columns for rows, columns in one.level_sizes])[:-1]
    pairs = zip(np.split(one.kept, ends), np.split(other.kept, ends), strict=True)
    return [Overlap.of(a, b) for a, b in pairs]


def _by_object(
    one: StoredSelection, other: StoredSelection
) -> list[tuple[int, Overlap, bool, bool]]:
    """Size, overlap, and whether the first and the second keep tokens, for each object."""
    if not len(one.objects.areas):
        return []
    tokens = tokens_on_objects(one.objects, one.level_sizes, one.original_size)
    kept, kept_by_other = one.kept, other.kept
    found = []
    for size, on_object in zip(one.objects.size_indices.tolist(), tokens, strict=True):
        a, b = kept[on_object], kept_by_other[on_object]
        found.append((size, Overlap.of(a, b), bool(a.any()), bool(b.any())))
    return found


def _agreement(
    objects: Sequence[tuple[int, Overlap, bool, bool]], size: int | None
) -> ObjectAgreement:
    """The objects of a size index, or of all sizes."""
    chosen = [entry for entry in objects if size is None or entry[0] == size]
    return ObjectAgreement(
        Overlap.mean_of([overlap for _, overlap, _, _ in chosen]),
        both=mean(float(a and b) for _, _, a, b in chosen),
        first_only=mean(float(a and not b) for _, _, a, b in chosen),
        second_only=mean(float(b and not a) for _, _, a, b in chosen),
        neither=mean(float(not a and not b) for _, _, a, b in chosen),
        count=len(chosen),
    )


def comparison_text(comparison: SelectionComparison, num_images: int, markdown: bool) -> str:
    """Gives tables for people.

    Args:
        comparison: The comparison.
        num_images: How many of the images that differ most to list.
        markdown: Tables in Markdown instead of aligned text.
    """
    # Only here: the tables are the benchmark programs', whose folder an evaluation does not need.
    from ..benchmarking.tables import table

    tokens = [("all tokens", comparison.overall)]
    tokens += [(f"level {index}", level) for index, level in enumerate(comparison.levels)]
    tokens += [
        (f"tokens on {'' if size == 'all' else size + ' '}objects", found.overlap)
        for size, found in comparison.objects.items()
        if found.count
    ]
    parts = [
        f"{len(comparison.images)} images"
        + (
            f"; {comparison.left_out} that only one of the two holds" if comparison.left_out else ""
        ),
        table(
            ("kept tokens", "IoU", "IoU by chance", "A's kept by B", "B's kept by A"),
            [(label, *(_number(value) for value in asdict(o).values())) for label, o in tokens],
            markdown,
        ),
    ]
    rows = [
        (
            f"{size} ({found.count})",
            *(_number(v) for v in (found.both, found.first_only, found.second_only, found.neither)),
        )
        for size, found in comparison.objects.items()
        if found.count
    ]
    if rows:
        header = ("share of objects with kept tokens of", "both", "A only", "B only", "neither")
        parts.append(table(header, rows, markdown))
    if num_images:
        of_images = ("image that differs most", "IoU", "kept by A", "kept by B")
        listed = [
            (image.file_name or str(image.image_id), _number(image.iou), *map(str, image.kept))
            for image in comparison.images[:num_images]
        ]
        parts.append(table(of_images, listed, markdown))
    return "\n\n".join(parts)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
