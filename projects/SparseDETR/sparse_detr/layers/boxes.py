"""Box arithmetic: formats, generalised IoU, and the inverse sigmoid of coordinates."""

from __future__ import annotations

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) corners (x0, y0, x1, y1) from centre and size."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size from corners."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def generalized_iou(boxes_a: Tensor, boxes_b: Tensor, eps: float = 0.0) -> Tensor:
    """Generalised IoU of boxes that broadcast against each other.

    Args:
        boxes_a: (..., 4) corners.
        boxes_b: (..., 4) corners, broadcastable to ``boxes_a``.
        eps: Added to union and hull, in units of area.

    Returns:
        (...) in [-1, 1]; finite also for boxes without area.

    Source: Rezatofighi et al., CVPR 2019; released code of DINO for ``eps``.
    """
    area_a = (boxes_a[..., 2:] - boxes_a[..., :2]).prod(-1)
    area_b = (boxes_b[..., 2:] - boxes_b[..., :2]).prod(-1)
    low = torch.maximum(boxes_a[..., :2], boxes_b[..., :2])
    high = torch.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    union = area_a + area_b - intersection
    hull_low = torch.minimum(boxes_a[..., :2], boxes_b[..., :2])
    hull_high = torch.maximum(boxes_a[..., 2:], boxes_b[..., 2:])
    hull = (hull_high - hull_low).clamp(min=0).prod(-1)
    if eps:
        return intersection / (union + eps) - (hull - union) / (hull + eps)
    # The smallest positive number changes no quotient of real boxes and keeps 0 / 0 finite.
    tiny = torch.finfo(union.dtype).tiny
    iou = intersection / union.clamp(min=tiny)
    return iou - (hull - union) / hull.clamp(min=tiny)


def inverse_sigmoid(values: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of values in [0, 1], with both the value and its complement at least ``eps``.

    Source: released code of Deformable DETR.
    """
    values = values.clamp(min=0, max=1)
    return torch.log(values.clamp(min=eps) / (1 - values).clamp(min=eps))
