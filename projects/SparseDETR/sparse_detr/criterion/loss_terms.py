"""The terms of the detection loss, each a sum over the matched pairs or over all logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers.boxes import cxcywh_to_xyxy, generalized_iou


def focal_sum(
    logits: Tensor,
    positive: tuple[Tensor, Tensor, Tensor],
    candidate_mask: Tensor | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Sigmoid focal loss summed over all logits.

    Almost all targets are zero, so the loss of a zero target is taken everywhere and corrected at
    the positives; a one-hot target is never made.

    Args:
        logits: (B, Q, num_classes).
        positive: (image, row, label) of the positives, three (M,) int64 tensors.
        candidate_mask: (B, Q) bool; other rows count nothing.
        alpha: Weight of positives.
        gamma: Exponent.

    Returns:
        Scalar.

    Source: Lin et al., Focal Loss for Dense Object Detection, equation 5.
    """
    negatives = (logits.sigmoid() ** gamma * F.softplus(logits)).sum(-1)
    if candidate_mask is not None:
        negatives = negatives.masked_fill(~candidate_mask, 0)
    hits = logits[positive]
    chance = hits.sigmoid()
    gain = alpha * (1 - chance) ** gamma * F.softplus(-hits)
    loss = (1 - alpha) * chance**gamma * F.softplus(hits)
    return (1 - alpha) * negatives.sum() + (gain - loss).sum()


def box_l1_sum(
    boxes_cxcywh: Tensor, targets_cxcywh: Tensor, sections: Sequence[int] | None = None
) -> Tensor:
    """L1 distance summed over matched pairs.

    Args:
        boxes_cxcywh: (M, 4).
        targets_cxcywh: (M, 4).
        sections: Numbers of consecutive pairs that are summed apart; None for one sum.

    Returns:
        Scalar, or (number of sections,).
    """
    return _section_sums((boxes_cxcywh - targets_cxcywh).abs(), sections)


def giou_sum(
    boxes_cxcywh: Tensor, targets_cxcywh: Tensor, sections: Sequence[int] | None = None
) -> Tensor:
    """One minus generalised IoU, summed over matched pairs; see :func:`box_l1_sum`."""
    giou = generalized_iou(cxcywh_to_xyxy(boxes_cxcywh), cxcywh_to_xyxy(targets_cxcywh))
    return _section_sums(1 - giou, sections)


def _section_sums(values: Tensor, sections: Sequence[int] | None) -> Tensor:
    if sections is None:
        return values.sum()
    return torch.stack([part.sum() for part in torch.split(values, list(sections))])
