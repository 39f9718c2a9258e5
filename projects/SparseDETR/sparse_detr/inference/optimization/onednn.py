"""What oneDNN, the CPU library below torch, offers beyond torch's public functions.

Convolutions and linear layers that take their weights in the layout that the library computes
with, and that apply an activation while a result is still in the registers. torch.compile uses the
same operators when it freezes a model. Role in the flow: below the packed layers.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

_OPERATORS = (
    "_linear_pointwise",
    "_reorder_linear_weight",
    "_convolution_pointwise",
    "_convolution_pointwise_",
    "_reorder_convolution_weight",
)


@cache
def operators_exist() -> bool:
    """Whether this build of torch has oneDNN with the operators used here."""
    built_in = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(built_in) and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)


@cache
def computes_in_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware.

    Elsewhere it is emulated, slower than float32.
    """
    return operators_exist() and bool(torch.cpu._is_avx512_bf16_supported())


def can_pack(weight: Tensor) -> bool:
    """Whether packing serves a weight: on the CPU, float32, or bfloat16 where that is fast.

    Args:
        weight: Of a convolution or a linear layer.
    """
    if weight.device.type != "cpu" or not operators_exist():
        return False
    if weight.dtype is torch.bfloat16:
        return computes_in_bfloat16()
    return weight.dtype is torch.float32


def frozen(parameter: Tensor) -> nn.Parameter:
    """A parameter with the same values that takes no gradient."""
    return nn.Parameter(parameter.detach(), requires_grad=False)
