"""A backbone whose frozen batch norms are computed step by step."""

from __future__ import annotations

import copy

from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn


class EagerFrozenBatchNorm(nn.Module):
    """A frozen batch norm that makes scale and shift anew in each call and applies them in turn.

    Args:
        norm: The norm whose numbers to use.

    Source: released code (the class that replaces torchvision's).
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: FrozenBatchNorm2d) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name))
        self.eps = norm.eps

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) from the same."""
        weight, bias, mean, variance = (
            numbers.reshape(1, -1, 1, 1)
            for numbers in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight * (variance + self.eps).rsqrt()
        output: Tensor = maps * scale + (bias - mean * scale)
        return output


def with_eager_norms(backbone: nn.Module) -> nn.Module:
    """Gives a copy of a backbone with eager frozen batch norms; all parameters are shared.

    Args:
        backbone: A Detectron2 backbone, as it is built.
    """
    shared = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
    copied = copy.deepcopy(backbone, shared)
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, FrozenBatchNorm2d):
                setattr(module, name, EagerFrozenBatchNorm(child))
    return copied
