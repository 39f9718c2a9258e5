"""The Hungarian matcher: which prediction answers for which object.

Role in the flow: called by the criterion for every supervised stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .layers.boxes import cxcywh_to_xyxy, generalized_iou
from .layers.precision import at_least_float32
from .structures import Predictions, Targets

Match = tuple[Tensor, Tensor]


class HungarianMatcher:
    """One-to-one assignment of predictions to objects with the lowest total cost.

    Args:
        class_cost: Weight of the classification cost.
        bbox_cost: Weight of the L1 distance of the boxes (cxcywh).
        giou_cost: Weight of the negative generalised IoU.
        alpha: Focal weight of positives.
        gamma: Focal exponent.

    Source: DETR, section 3.1; Deformable DETR for the focal form of the class cost.
    """

    def __init__(
        self,
        class_cost: float = 2.0,
        bbox_cost: float = 5.0,
        giou_cost: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        if class_cost == 0 and bbox_cost == 0 and giou_cost == 0:
            raise ValueError("class_cost, bbox_cost and giou_cost must not all be zero")
        self.class_cost = class_cost
        self.bbox_cost = bbox_cost
        self.giou_cost = giou_cost
        self.alpha = alpha
        self.gamma = gamma

    @torch.no_grad()
    def __call__(self, predictions: Predictions, targets: Sequence[Targets]) -> list[Match]:
        """The matches of each image.

        Args:
            predictions: Logits and boxes of one stage; rows that are no candidates never match.
            targets: Objects of the B images.

        Returns:
            For each image (rows, objects), two int64 tensors on the predictions' device of length
            min(number of candidates, number of objects), rows ascending.
        """
        matches: list[Match] = []
        device = predictions.logits.device
        for index, target in enumerate(targets):
            logits, boxes = predictions.logits[index], predictions.boxes_cxcywh[index]
            candidates: Tensor | None = None
            if predictions.candidate_mask is not None and len(target.labels):
                candidates = predictions.candidate_mask[index].nonzero().squeeze(1)
                logits, boxes = logits[candidates], boxes[candidates]
            labels = target.labels
            if predictions.class_agnostic:
                labels = torch.zeros_like(labels)
            cost = self.cost(logits, boxes, labels, target.boxes_cxcywh)
            rows, objects = (torch.as_tensor(i) for i in linear_sum_assignment(cost.cpu()))
            rows = rows.to(device)
            if candidates is not None:
                rows = candidates[rows]
            matches.append((rows, objects.to(device)))
        return matches

    def cost(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Tensor:
        """Cost of every pair of a prediction and an object.

        Args:
            logits: (Q, num_classes).
            boxes: (Q, 4) cxcywh.
            labels: (T,) int64.
            target_boxes: (T, 4) cxcywh.

        Returns:
            (Q, T).
        """
        dtype = at_least_float32(logits.dtype)
        probability = logits.to(dtype)[:, labels].sigmoid()
        boxes, target_boxes = boxes.to(dtype), target_boxes.to(dtype)
        eps = 1e-8
        positive = -self.alpha * (1 - probability) ** self.gamma * (probability + eps).log()
        negative = -(1 - self.alpha) * probability**self.gamma * (1 - probability + eps).log()
        distance = torch.cdist(boxes, target_boxes, p=1)
        giou = generalized_iou(cxcywh_to_xyxy(boxes)[:, None], cxcywh_to_xyxy(target_boxes)[None])
        return (
            self.bbox_cost * distance
            + self.class_cost * (positive - negative)
            - self.giou_cost * giou
        )
