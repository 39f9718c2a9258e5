"""Convolutions that oneDNN runs together with the ReLU or the sum that follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .onednn import can_pack, frozen


class PackedConvolution(nn.Module):
    """A convolution for inference on the CPU, channels last, with what follows it.

    The layout that the library wants the weights in depends on the size of the input, and to
    convert another one costs more than any layout saves (measured: 100 ms for a ResNet-50 that
    takes 120). So the weights are arranged in each call, as torch does it, until an input has the
    size of the one before it: then the arranged weights are kept until the size changes.

    Args:
        convolution: The convolution whose weights it takes; see :meth:`serves`.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = frozen(convolution.weight.contiguous(memory_format=torch.channels_last))
        bias = convolution.bias
        self.bias = None if bias is None else frozen(bias)
        self.geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        self.train(convolution.training)
        self._kept: tuple[torch.Size, Tensor | None] = (torch.Size(), None)

    @staticmethod
    def serves(convolution: nn.Module) -> bool:
        """Whether a module can be replaced: a convolution on the CPU, zero padding, no norm."""
        return (
            isinstance(convolution, nn.Conv2d)
            and convolution.padding_mode == "zeros"
            and not isinstance(convolution.padding, str)
            and getattr(convolution, "norm", None) is None
            and getattr(convolution, "activation", None) is None
            and can_pack(convolution.weight)
        )

    def _apply(self, fn: Any, recurse: bool = True) -> PackedConvolution:
        """Moves the weights within the CPU and forgets the arranged ones.

        Raises:
            ValueError: To another device or type: the library serves only what it was made for.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not can_pack(self.weight):
            raise ValueError(
                f"an optimised detector cannot be moved to {self.weight.device} or turned into "
                f"{self.weight.dtype}; move the original and optimise it there"
            )
        self._kept = (torch.Size(), None)
        return self

    def _weight_for(self, features: Tensor) -> Tensor:
        # One assignment of a pair: of two threads both may arrange, but they never mix sizes.
        size, arranged = self._kept
        if size != features.shape:
            self._kept = (features.shape, None)
            return self.weight
        if arranged is None:
            arranged = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight.detach(), *self.geometry, list(features.shape)
            )
            self._kept = (size, arranged)
        return arranged

    def forward(self, features: Tensor, relu: bool = False) -> Tensor:
        """(B, C', H', W'), channels last, from (B, C, H, W).

        Args:
            features: The input; one of another layout is copied to channels last.
            relu: Ends in a ReLU.
        """
        features = features.contiguous(memory_format=torch.channels_last)
        weight, after = self._weight_for(features), "relu" if relu else "none"
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            features, weight, self.bias, *self.geometry, after, [], ""
        )
        return output

    def add_onto(self, residual: Tensor, features: Tensor) -> Tensor:
        """ReLU of the sum of both, written over ``residual``.

        Args:
            residual: (B, C', H', W'), channels last; lost. (The library's sum that keeps it copies
                it to another layout, at ten times the cost of a plain copy.)
            features: (B, C, H, W), channels last.
        """
        operator = torch.ops.mkldnn._convolution_pointwise_.binary
        weight = self._weight_for(features)
        output: Tensor = operator(
            residual, features, weight, self.bias, *self.geometry, "add", 1.0, "relu", [], ""
        )
        return output
