"""The box terms of the detection loss, each a sum over the matched pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layers.boxes import cxcywh_to_xyxy, generalized_iou


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
    boxes_cxcywh: Tensor,
    targets_cxcywh: Tensor,
    sections: Sequence[int] | None = None,
    eps: float = 0.0,
) -> Tensor:
    """One minus generalised IoU, summed over matched pairs; see :func:`box_l1_sum`.

    Args:
        boxes_cxcywh: (M, 4).
        targets_cxcywh: (M, 4).
        sections: Numbers of consecutive pairs that are summed apart; None for one sum.
        eps: See :func:`sparse_detr.layers.boxes.generalized_iou`.

    Returns:
        Scalar, or (number of sections,).
    """
    giou = generalized_iou(cxcywh_to_xyxy(boxes_cxcywh), cxcywh_to_xyxy(targets_cxcywh), eps)
    return _section_sums(1 - giou, sections)


def _section_sums(values: Tensor, sections: Sequence[int] | None) -> Tensor:
    if sections is None:
        return values.sum()
    return torch.stack([part.sum() for part in torch.split(values, list(sections))])
