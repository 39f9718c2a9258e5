"""The feed-forward network of transformer layers."""

from __future__ import annotations

from torch import Tensor, nn

from .dropout import Dropout


class FeedForward(nn.Module):
    """Two linear layers with ReLU; dropout after each.

    Args:
        hidden_dim: Channels C of input and output.
        feedforward_dim: Channels between.
        dropout: Probability, in training.
    """

    def __init__(self, hidden_dim: int, feedforward_dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.linear1 = nn.Linear(hidden_dim, feedforward_dim)
        self.dropout1 = Dropout(dropout)
        self.linear2 = nn.Linear(feedforward_dim, hidden_dim)
        self.dropout2 = Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """(..., C) from (..., C), without the residual."""
        # Dropout first: the same numbers, and the backward pass of ReLU and of the second layer
        # share one tensor.
        hidden = self.dropout1(self.linear1(features)).relu()
        output: Tensor = self.dropout2(self.linear2(hidden))
        return output
