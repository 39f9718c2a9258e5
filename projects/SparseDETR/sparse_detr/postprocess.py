"""From the final predictions to detections in the original image.

Role in the flow: heads -> **postprocess** (inference).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .class_scores import class_probabilities
from .layers.boxes import cxcywh_to_xyxy
from .layers.precision import at_least_float32
from .structures import Predictions, Size, gather_rows


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best first.

    Attributes:
        boxes_xyxy: (M, 4) pixels of the original image.
        scores: (M,) in (0, 1).
        classes: (M,) int64.
        queries: (M,) int64, the query that each comes from.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    classes: Tensor
    queries: Tensor


class Postprocess(ABC):
    """A choice of pairs of query and class; no threshold, no suppression.

    Args:
        max_detections: Detections per image.
        keep_boxes_outside: False clips the boxes to the image, as Detectron2's evaluators and
            pictures expect. True is the released behaviour.
        detected_classes: Classes from this one on are none: a pair with one of them takes its
            place among the best and is then left out, as COCO's evaluation leaves out category
            ids that do not exist. None: every class is one.

    Attributes:
        no_object: Whether the last logit stands for "no object".
    """

    no_object: ClassVar[bool]

    def __init__(
        self,
        max_detections: int = 100,
        keep_boxes_outside: bool = False,
        detected_classes: int | None = None,
    ) -> None:
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        if detected_classes is not None and detected_classes < 1:
            raise ValueError(f"detected_classes must be at least 1, got {detected_classes}")
        self.detected_classes = detected_classes
        self.max_detections = max_detections
        self.keep_boxes_outside = keep_boxes_outside

    def __call__(self, predictions: Predictions, original_sizes: Sequence[Size]) -> list[Instances]:
        """Detections of each image, best first.

        Args:
            predictions: Of the final decoder layer.
            original_sizes: B pairs (height, width), pixels, of the images to draw on.

        Returns:
            B Instances with ``pred_boxes`` (xyxy, pixels), ``scores`` and ``pred_classes``.

        Raises:
            FloatingPointError: A box or a score is not finite.
        """
        boxes, scores, classes, _ = self._best(predictions)
        limits = _sizes_as_boxes(original_sizes, boxes)
        boxes = boxes * limits
        if not self.keep_boxes_outside:
            boxes = boxes.clamp(min=0).minimum(limits)
        finite = boxes.isfinite().all(-1) & scores.isfinite()
        # All that the host has to know, in one transfer.
        told = torch.stack([finite.all(1).long(), (scores >= 0).sum(1)]).tolist()
        wrong = [image for image, fine in enumerate(told[0]) if not fine]
        if wrong:
            raise FloatingPointError(
                f"predictions must be finite, got NaN or infinity for images {wrong} of the batch; "
                "the weights or the image are damaged, or half precision overflowed"
            )
        return [
            Instances(
                size,
                pred_boxes=Boxes(boxes[image, :count]),
                scores=scores[image, :count],
                pred_classes=classes[image, :count],
            )
            for image, (size, count) in enumerate(zip(original_sizes, told[1], strict=True))
        ]

    def select(self, predictions: Predictions, original_sizes: Sequence[Size]) -> list[Detections]:
        """Detections of each image in the precision of the predictions, not clipped."""
        boxes, scores, classes, queries = self._best(predictions)
        boxes = boxes * _sizes_as_boxes(original_sizes, boxes)
        counts = (scores >= 0).sum(1).tolist()
        return [
            Detections(
                boxes[image, :count],
                scores[image, :count],
                classes[image, :count],
                queries[image, :count],
            )
            for image, count in enumerate(counts)
        ]

    def _best(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best pairs of query and class of each image.

        Returns:
            boxes (B, M, 4) xyxy, normalised; scores (B, M), -1 on pairs that are none, which come
            last; classes (B, M); queries (B, M).
        """
        scores, classes, queries = self._pairs(predictions)
        if self.detected_classes is not None:
            scores = scores.masked_fill(classes >= self.detected_classes, -1)
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            classes, queries = classes.gather(1, order), queries.gather(1, order)
        boxes = gather_rows(predictions.boxes_cxcywh.to(scores.dtype), queries)
        return cxcywh_to_xyxy(boxes), scores, classes, queries

    @abstractmethod
    def _pairs(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, classes and queries of the pairs, (B, M) each, best first; see _best."""


class TopDetections(Postprocess):
    """The best pairs of query and class over all queries, from one logit per class.

    Source: Deformable DETR, released code; a query may give several detections.
    """

    no_object = False

    def _pairs(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
        logits, mask = predictions.logits, predictions.candidate_mask
        scores = logits.to(at_least_float32(logits.dtype)).sigmoid()
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], -1)
        num_classes = logits.shape[-1]
        scores, pairs = scores.flatten(1).topk(min(self.max_detections, scores[0].numel()), dim=1)
        queries = torch.div(pairs, num_classes, rounding_mode="floor")
        return scores, pairs % num_classes, queries


class BestClassDetections(Postprocess):
    """The best class of every query, from a distribution that has "no object" last.

    Source: DETR, released code, which gives the queries in their own order.
    """

    no_object = True

    def _pairs(self, predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
        scores, classes = class_probabilities(predictions.logits).max(-1)
        if predictions.candidate_mask is not None:
            scores = scores.masked_fill(~predictions.candidate_mask, -1)
        scores, queries = scores.topk(min(self.max_detections, scores.shape[1]), dim=1)
        return scores, classes.gather(1, queries), queries


def _sizes_as_boxes(sizes: Sequence[Size], like: Tensor) -> Tensor:
    """(B, 1, 4) width, height, width, height of each image, in the type of ``like``."""
    return like.new_tensor([[width, height] * 2 for height, width in sizes])[:, None]
