"""Weight initialisation shared by the parts of the transformer."""

from __future__ import annotations

import math

from torch import nn


def xavier_matrices_(module: nn.Module) -> None:
    """Xavier-uniform initialisation of every parameter with two or more dimensions, in place.

    Biases and norms keep what their layers gave them.

    Source: released code of Deformable DETR and Sparse DETR (transformer only, not the heads).
    """
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def prior_bias(probability: float) -> float:
    """Bias of a sigmoid classifier that starts at ``probability``.

    Source: Lin et al., Focal Loss for Dense Object Detection, section 3.3.
    """
    return -math.log((1 - probability) / probability)
