"""The encoder with dense attention: every updated token reads every token."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..layers.dense_attention import DenseAttention
from ..structures import FeatureTokens, gather_rows
from .encoder_stack import Encoder, EncoderLayer


class DenseEncoderLayer(EncoderLayer):
    """Dense attention and feed-forward network, each with residual and post-norm.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training; also on the attention weights.

    Source: DETR, section 3.2 and appendix A.3.
    """

    self_attn: DenseAttention

    def __init__(
        self, hidden_dim: int, num_heads: int, feedforward_dim: int = 2048, dropout: float = 0.1
    ) -> None:
        attention = DenseAttention(hidden_dim, num_heads, dropout)
        super().__init__(attention, hidden_dim, feedforward_dim, dropout)

    def forward(
        self,
        rows: Tensor,
        memory: Tensor,
        position: Tensor,
        memory_position: Tensor,
        padding_mask: Tensor | None,
    ) -> Tensor:
        """Updated rows.

        Args:
            rows: (B, K, C) tokens to update.
            memory: (B, N, C) tokens that give keys and values.
            position: (B, K, C) of the rows.
            memory_position: (B, N, C) of the memory.
            padding_mask: (B, N) bool, True on padding; None without padding.
        """
        query = rows + position
        key = query if rows is memory else memory + memory_position
        attended, _ = self.self_attn(query, key, memory, padding_mask)
        return self.updated(rows, attended)


class DenseEncoder(Encoder):
    """A stack of layers with dense attention; see :class:`Encoder`.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_layers: Layers E.
        feedforward_dim: Width of the feed-forward networks.
        dropout: Probability, in training; also on the attention weights.
        checkpoint_activations: Recompute activations in the backward pass to save memory.

    Source: DETR, section 3.2; Sparse DETR, section 3.2, for the selection, which works with any
        attention.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_layers: int = 6,
        feedforward_dim: int = 2048,
        dropout: float = 0.1,
        checkpoint_activations: bool = False,
    ) -> None:
        layers = (
            DenseEncoderLayer(hidden_dim, num_heads, feedforward_dim, dropout)
            for _ in range(num_layers)
        )
        super().__init__(layers, checkpoint_activations)

    def place(self, tokens: FeatureTokens, indices: Tensor | None) -> tuple[Any, ...]:
        """Positions of the rows and of all tokens, and padding; see :meth:`Encoder.place`."""
        everywhere = tokens.position
        position = everywhere if indices is None else gather_rows(everywhere, indices)
        return position, everywhere, tokens.key_padding_mask
