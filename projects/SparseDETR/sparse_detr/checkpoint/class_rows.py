"""Class logits by COCO's category ids, as released, and by contiguous classes, as here.

A released classifier has 91 rows: row ``i`` is category id ``i``. 80 of the ids exist; row 0 and
ten others were never the class of an object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from detectron2.data import MetadataCatalog
from torch import Tensor

from ..layers.initialization import prior_bias

RELEASED_CLASSES = 91
CLASSES_80 = "80"
"""The 80 classes of COCO, contiguous."""
CLASSES_91 = "91"
"""Those 80 first, then the 11 logits that stand for no class."""
CLASSES_KEPT = "kept"
"""As in the file."""
_COCO_DATASET = "coco_2017_val"
_CLASSIFIER = re.compile(r"heads\.stages\.(\d+)\.class_embed\.(weight|bias)")


def coco_category_ids() -> tuple[int, ...]:
    """The category id of each contiguous class, in the order of Detectron2's COCO data sets."""
    contiguous = MetadataCatalog.get(_COCO_DATASET).thing_dataset_id_to_contiguous_id
    return tuple(sorted(contiguous, key=contiguous.__getitem__))


def detected_classes_override() -> str:
    """The change of a config after which only the 80 classes, which come first, are detected."""
    return f"+model.postprocess.detected_classes={len(coco_category_ids())}"


def classifier_stage(name: str) -> int | None:
    """The stage of the head that a weight classifies for; None for other weights."""
    match = _CLASSIFIER.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class ClassRows:
    """Which rows of the released classifiers stand where.

    Attributes:
        object_stage: Stage whose logit 0 says "object" whatever its class, as in the original
            two-stage Deformable DETR; its rows are not sorted by class. None: there is none.
    """

    object_stage: int | None = None

    def order(self, stage: int | None) -> Tensor:
        """(91,) the released row of each row here; the last 11 stand for no class of COCO.

        Args:
            stage: Stage of the head; None for other weights with a row for each class.
        """
        if stage is not None and stage == self.object_stage:
            return torch.arange(RELEASED_CLASSES)
        ids = coco_category_ids()
        unused = [row for row in range(RELEASED_CLASSES) if row not in set(ids)]
        return torch.tensor([*ids, *unused])

    def contiguous(self, name: str, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Splits a released weight with a row for each class.

        Args:
            name: Its name here.
            tensor: (91, ...).

        Returns:
            (80, ...) rows of the contiguous classes, and (11, ...) the other rows.
        """
        ordered = tensor[self.order(classifier_stage(name))]
        count = len(coco_category_ids())
        return ordered[:count].clone(), ordered[count:].clone()

    def released(self, name: str, tensor: Tensor, unused: Tensor | None) -> Tensor:
        """Puts a classifier weight back in the order of category ids.

        Args:
            name: Its name here.
            tensor: (80, ...), or (91, ...) with the rows of no class last.
            unused: (11, ...) rows of no class, for a tensor of 80; None makes ones that never win.

        Returns:
            (91, ...).
        """
        stage = classifier_stage(name)
        assert stage is not None
        if len(tensor) < RELEASED_CLASSES:
            missing = RELEASED_CLASSES - len(tensor)
            tensor = torch.cat(
                [tensor, never_winning(tensor, missing) if unused is None else unused]
            )
        result = torch.empty_like(tensor)
        result[self.order(stage)] = tensor
        return result


def never_winning(like: Tensor, count: int) -> Tensor:
    """Rows as a classifier starts: no weights, and a bias that means one in a hundred.

    Args:
        like: (..., ...) other rows of the same weight.
        count: Rows.

    Returns:
        (count, ...).
    """
    value = prior_bias(0.01) if like.dim() == 1 else 0.0
    return like.new_full((count, *like.shape[1:]), value)


def has_class_count(weights: Mapping[str, Tensor], count: int) -> bool:
    """Whether all classifiers among ``weights`` (by their names here) have ``count`` rows."""
    rows = {len(t) for name, t in weights.items() if classifier_stage(name) is not None}
    return rows == {count}
