"""Batch norms whose statistics no longer change, folded into the convolutions before them.

Role in the flow: first step of :func:`sparse_detr.inference.optimize_for_inference`.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn


def fold_batch_norms(module: nn.Module) -> int:
    """Folds every batch norm that belongs to a convolution, in place.

    A convolution of Detectron2 holds the norm that follows it as ``norm``. The scale and shift are
    computed in float64, so in float64 the result is exact to rounding, and a float32 weight is
    rounded once.

    Args:
        module: In evaluation mode, so that no batch norm would change its statistics.

    Returns:
        Number of norms folded. Norms of other kinds are left as they are.
    """
    count = 0
    for convolution in module.modules():
        norm = getattr(convolution, "norm", None)
        if isinstance(convolution, nn.Conv2d) and _keeps_its_statistics(norm):
            _fold(convolution, norm)
            convolution.norm = None  # type: ignore[assignment]  # Detectron2's own "no norm"
            count += 1
    return count


def _keeps_its_statistics(norm: object) -> bool:
    if isinstance(norm, FrozenBatchNorm2d):
        return True
    # Without running statistics a batch norm takes those of its batch, in evaluation too.
    is_batch_norm = isinstance(norm, nn.modules.batchnorm._BatchNorm)
    return is_batch_norm and norm.running_mean is not None  # type: ignore[attr-defined]


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: Any) -> None:
    """Scale and shift of ``norm`` become part of the convolution's weight and bias."""
    weight = convolution.weight
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    start = -mean if convolution.bias is None else convolution.bias.double() - mean
    bias = start * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    folded = weight.double() * scale.view(-1, 1, 1, 1)
    convolution.weight = nn.Parameter(folded.to(weight.dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
