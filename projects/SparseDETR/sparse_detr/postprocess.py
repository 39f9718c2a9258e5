"""From the final predictions to detections in the original image.

Role in the flow: heads -> **postprocess** (inference).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .layers.boxes import cxcywh_to_xyxy
from .layers.precision import at_least_float32
from .structures import Predictions, Size


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best first.

    Attributes:
        boxes_xyxy: (M, 4) pixels of the original image.
        scores: (M,) in (0, 1).
        classes: (M,) int64.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    classes: Tensor


class TopDetections:
    """The best pairs of query and class over all queries; no threshold, no suppression.

    Args:
        max_detections: Detections per image.
        keep_boxes_outside: False clips the boxes to the image, as Detectron2's evaluators and
            pictures expect. True is the released behaviour.

    Source: Deformable DETR, released code; a query may give several detections.
    """

    def __init__(self, max_detections: int = 100, keep_boxes_outside: bool = False) -> None:
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.max_detections = max_detections
        self.keep_boxes_outside = keep_boxes_outside

    def __call__(self, predictions: Predictions, original_sizes: Sequence[Size]) -> list[Instances]:
        """Detections of each image, best first.

        Args:
            predictions: Of the final decoder layer.
            original_sizes: B pairs (height, width), pixels, of the images to draw on.

        Returns:
            B Instances with ``pred_boxes`` (xyxy, pixels), ``scores`` and ``pred_classes``.
        """
        return [
            self._instances(detections, size)
            for detections, size in zip(
                self.select(predictions, original_sizes), original_sizes, strict=True
            )
        ]

    def select(self, predictions: Predictions, original_sizes: Sequence[Size]) -> list[Detections]:
        """Detections of each image in the precision of the predictions, not clipped."""
        logits = predictions.logits
        scores = logits.to(at_least_float32(logits.dtype)).sigmoid()
        mask = predictions.candidate_mask
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], -1)
        scores = scores.flatten(1)
        count = min(self.max_detections, scores.shape[1])
        top_scores, top = scores.topk(count, dim=1)
        num_classes = logits.shape[-1]
        rows = torch.div(top, num_classes, rounding_mode="floor")
        boxes = cxcywh_to_xyxy(predictions.boxes_cxcywh.to(scores.dtype))
        scale = [boxes.new_tensor([width, height] * 2) for height, width in original_sizes]
        found = []
        for i in range(len(scale)):
            own = slice(None) if mask is None else top_scores[i] >= 0
            row, label = rows[i][own], top[i][own] % num_classes
            found.append(Detections(boxes[i][row] * scale[i], top_scores[i][own], label))
        return found

    def _instances(self, detections: Detections, size: Size) -> Instances:
        boxes = Boxes(detections.boxes_xyxy)
        if not self.keep_boxes_outside:
            boxes.clip(size)
        return Instances(
            size, pred_boxes=boxes, scores=detections.scores, pred_classes=detections.classes
        )
