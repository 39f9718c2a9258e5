"""Multi-layer perceptron of the box heads."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        in_dim: Channels of the input.
        hidden_dim: Channels of the hidden layers.
        out_dim: Channels of the output.
        num_layers: Number of linear layers, at least 1.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        widths = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, features: Tensor) -> Tensor:
        """(..., out_dim) from (..., in_dim)."""
        for layer in self.layers[:-1]:
            features = layer(features).relu()
        output: Tensor = self.layers[-1](features)
        return output
