"""Linear layers with weights in oneDNN's layout.

On the processor this was measured on (AVX-512, not Intel's) torch's own float32 matrix product
reaches 37 % of the peak and oneDNN's 80 %: 2.1 to 2.7 times faster from 300 rows on, equal at about
16 rows of 256 x 256, slower below. docs/performance.md has the figures.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .onednn import can_pack, frozen

# The layout that the library picks depends on the number of rows. This one is its choice for 300
# rows and more, and was not slower down to 8 rows.
_ROWS_OF_LAYOUT = 1024
# Below, the fixed cost of a call (10 to 15 microseconds) outweighs the faster product.
_LEAST_OUTPUTS = 16
_LEAST_PRODUCTS = 2**21


class PackedLinear(nn.Linear):
    """A linear layer for inference, packed for the CPU.

    On small inputs, and where packing does not serve (another device, float64), it is a plain
    linear layer. The input is cast to the type of the weight. Autocast does not reach inside.

    Args:
        linear: The layer whose weights it takes. They are shared and must not change.
        activation: "none", "relu" or "gelu", applied to the output.
        dtype: Type of the weights and of the output; None keeps that of the layer.
    """

    def __init__(
        self, linear: nn.Linear, activation: str = "none", dtype: torch.dtype | None = None
    ) -> None:
        if activation not in ("none", "relu", "gelu"):
            raise ValueError(f"activation must be none, relu or gelu, got {activation!r}")
        has_bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, has_bias, device="meta")
        dtype = dtype or linear.weight.dtype
        self.weight = frozen(linear.weight.to(dtype))
        if has_bias:
            self.bias = frozen(linear.bias.to(dtype))
        self.activation = activation
        self.train(linear.training)
        self._pack()

    def _pack(self) -> None:
        self._packed: Tensor | None = None
        if self.out_features >= _LEAST_OUTPUTS and can_pack(self.weight):
            reorder = torch.ops.mkldnn._reorder_linear_weight
            self._packed = reorder(self.weight.detach(), _ROWS_OF_LAYOUT)

    def _apply(self, fn: Any, recurse: bool = True) -> PackedLinear:
        """Moves the weights (``to``, ``float`` and so on) and packs them anew."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._pack()
        return self

    def forward(self, features: Tensor) -> Tensor:
        """(..., out_features) from (..., in_features)."""
        features = features.to(self.weight.dtype)
        if self._packed is not None and self._is_served(features):
            # The last argument names the gelu that is not approximated.
            output: Tensor = torch.ops.mkldnn._linear_pointwise(
                features, self._packed, self.bias, self.activation, [], "none"
            )
            return output
        output = F.linear(features, self.weight, self.bias)
        if self.activation == "relu":
            return output.relu()
        return F.gelu(output) if self.activation == "gelu" else output

    def _is_served(self, features: Tensor) -> bool:
        return (
            features.device.type == "cpu"
            and features.numel() * self.out_features >= _LEAST_PRODUCTS
        )

    def extra_repr(self) -> str:
        """What print(model) shows."""
        return f"{super().extra_repr()}, activation={self.activation}, dtype={self.weight.dtype}"
