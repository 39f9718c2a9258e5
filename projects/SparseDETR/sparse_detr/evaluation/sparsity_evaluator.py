"""The evaluator of token selection, which runs beside COCOEvaluator in the same pass.

Role in the flow: reads the ``token_use`` that :class:`~.token_use.WithTokenUse` adds to a
detector's output. Its task in Detectron2's results is ``sparsity``.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from .image_sparsity import (
    ImageSparsity,
    dataset_figures,
    each_once,
    plain_id,
    without_repetitions,
)
from .objects import NO_OBJECTS, OBJECT_SIZES, ObjectBoxes, objects_by_image
from .selection_file import StoredSelection, save_selections
from .token_use import TOKEN_USE, TokenUse

logger = logging.getLogger(__name__)

TASK = "sparsity"
SELECTION_FILE = "kept_tokens.npz"


class SparsityEvaluator(DatasetEvaluator):
    """Corr, kept tokens, and objects that kept tokens lie on.

    Each image counts alone, whatever batch and process it was in. Corr is the training log's:
    the share of the decoder's attention (DAM, padding left out) that falls on the image's own kept
    tokens; here it is the mean over all images, where the log shows one batch. The released code
    also counts rows that fill an image up to the batch's largest count, and padding; with one image
    per batch there is neither, and both definitions agree.

    Where encoder layers keep different tokens, "kept" is what any layer updates.

    Args:
        dataset_name: Registered data set that is evaluated.
        distributed: Collect from all processes; False evaluates those of this process alone.
        output_dir: Folder for the kept tokens; None if they are not stored.
        store_selections: Write the kept tokens of all images as ``kept_tokens.npz``.

    Attributes:
        images: The figures of each image of the last evaluation, in the first process.

    Raises:
        ValueError: ``store_selections`` without a folder.
    """

    wants_token_use = True

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | os.PathLike[str] | None = None,
        store_selections: bool = False,
    ) -> None:
        if store_selections and output_dir is None:
            raise ValueError("output_dir must be given where store_selections is True, got None")
        self.dataset_name = dataset_name
        self.distributed = distributed
        self.output_dir = output_dir
        self.store_selections = store_selections
        self._objects: Mapping[Any, ObjectBoxes] | None = None
        self.images: tuple[ImageSparsity, ...] = ()
        self._images: list[ImageSparsity] = []
        self._selections: list[StoredSelection] = []

    def reset(self) -> None:
        """Forgets the images of an earlier evaluation."""
        self._images, self._selections = [], []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Takes the images of a batch.

        Args:
            inputs: Detectron2's dicts with ``image_id``.
            outputs: Of :class:`~.token_use.WithTokenUse`.

        Raises:
            ValueError: The outputs lack ``token_use``.
        """
        if self._objects is None:
            self._objects = objects_by_image(self.dataset_name)
        for item, output in zip(inputs, outputs, strict=True):
            use = output.get(TOKEN_USE)
            if use is None:
                raise ValueError(
                    f"outputs lack {TOKEN_USE!r}, which the sparsity evaluator needs; evaluate "
                    "sparse_detr.evaluation.WithTokenUse(model) instead of the model"
                )
            image_id = plain_id(item["image_id"])
            objects = self._objects.get(image_id, NO_OBJECTS)
            self._images.append(ImageSparsity.of(image_id, use, objects))
            if self.store_selections and use.kept_by_any is not None:
                self._selections.append(_stored(item, use, objects))

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gives the figures under ``sparsity``; empty in all processes but the first.

        Returns:
            See :func:`~.image_sparsity.dataset_figures`.
        """
        images, selections = self._images, self._selections
        self.images = ()
        if self.distributed:
            comm.synchronize()
            gathered = comm.gather((images, selections), dst=0)
            if not comm.is_main_process():
                return {}
            images = list(itertools.chain.from_iterable(part for part, _ in gathered))
            selections = list(itertools.chain.from_iterable(part for _, part in gathered))
        if not images:
            logger.warning("The sparsity evaluator received no images")
            return {}
        self.images = without_repetitions(images)
        figures = dataset_figures(self.images)
        logger.info("Token selection over %d images:\n%s", len(self.images), figures_text(figures))
        if self.store_selections:
            self._store(selections)
        return {TASK: figures}

    def _store(self, selections: Sequence[StoredSelection]) -> None:
        if not selections:
            logger.warning("The model selects no tokens, so no selection is stored")
            return
        assert self.output_dir is not None
        ordered = each_once(selections)
        path = save_selections(ordered, Path(self.output_dir) / SELECTION_FILE)
        logger.info("Kept tokens of %d images: %s", len(ordered), path)


def _stored(item: Mapping[str, Any], use: TokenUse, objects: ObjectBoxes) -> StoredSelection:
    kept = use.kept_by_any
    assert kept is not None
    return StoredSelection.of(
        image_id=plain_id(item["image_id"]),
        file_name=str(item.get("file_name", "")),
        level_sizes=use.level_sizes,
        original_size=use.original_size,
        kept=kept.numpy(),
        objects=objects,
    )


def figures_text(figures: Mapping[str, float]) -> str:
    """Gives the figures as lines for people.

    Args:
        figures: From :func:`~.image_sparsity.dataset_figures`.
    """
    levels = [
        name.removeprefix("attention_level") for name in figures if name.startswith("attention_")
    ]

    def number(name: str, form: str = ".3f") -> str:
        value = figures.get(name, math.nan)
        return "-" if math.isnan(value) else format(value, form)

    rows: list[tuple[str, ...]] = [("", "all", *(f"level {level}" for level in levels))]
    for label, name, form in (
        ("Corr", "corr", ".3f"),
        ("kept tokens", "kept_tokens", ".1f"),
        ("keeping ratio", "keep_ratio", ".3f"),
        ("share of attention", "attention", ".3f"),
    ):
        if f"{name}_level0" in figures:
            by_level = (number(f"{name}_level{level}", form) for level in levels)
            rows.append((label, number(name, form), *by_level))
    if "objects_with_kept_tokens" in figures:
        rows.append(("", "all", *OBJECT_SIZES))
        for label, name in (
            ("objects with kept tokens", "objects_with_kept_tokens"),
            ("tokens of an object kept", "object_tokens_kept"),
        ):
            by_size = (number(f"{name}_{size}") for size in OBJECT_SIZES)
            rows.append((label, number(name), *by_size))
    lines = [f"{label:<26}" + "".join(f"{cell:>10}" for cell in cells) for label, *cells in rows]
    layers = [name for name in figures if name.startswith("keep_ratio_layer")]
    if layers:
        lines.append("keeping ratio by layer: " + ", ".join(number(name) for name in layers))
    return "\n".join(lines)
