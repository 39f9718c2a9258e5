"""The encoder with dense attention: every updated token reads every token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..heads import DetectionHeads
from ..layers.dense_attention import DenseAttention
from ..layers.residual import add_update
from ..structures import EncoderOutput, FeatureTokens, TokenSelection, gather_rows
from .encoder_stack import Encoder, EncoderLayer


class DenseEncoderLayer(EncoderLayer):
    """Dense attention and feed-forward network, each with residual and post-norm or pre-norm.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training; also on the attention weights.
        pre_norm: Norm what attention and network read instead of the sums.

    Source: DETR, section 3.2 and appendix A.3; released code (``--pre_norm``).
    """

    self_attn: DenseAttention

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        feedforward_dim: int = 2048,
        dropout: float = 0.1,
        pre_norm: bool = False,
    ) -> None:
        attention = DenseAttention(hidden_dim, num_heads, dropout)
        super().__init__(attention, hidden_dim, feedforward_dim, dropout)
        self.pre_norm = pre_norm

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
        read, source = rows, memory
        if self.pre_norm:
            read = self.norm1(rows)
            source = read if rows is memory else self.norm1(memory)
        query = read + position
        key = query if read is source else source + memory_position
        attended, _ = self.self_attn(query, key, source, padding_mask)
        if not self.pre_norm:
            return self.updated(rows, attended)
        rows = add_update(rows, self.dropout(attended))
        return add_update(rows, self.ffn(self.norm2(rows)))


class DenseEncoder(Encoder):
    """A stack of layers with dense attention; see :class:`Encoder`.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_layers: Layers E.
        feedforward_dim: Width of the feed-forward networks.
        dropout: Probability, in training; also on the attention weights.
        checkpoint_activations: Recompute activations in the backward pass to save memory.
        pre_norm: See :class:`DenseEncoderLayer`; a norm of the memory follows the last layer.

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
        pre_norm: bool = False,
    ) -> None:
        layers = (
            DenseEncoderLayer(hidden_dim, num_heads, feedforward_dim, dropout, pre_norm)
            for _ in range(num_layers)
        )
        super().__init__(layers, checkpoint_activations)
        self.norm = nn.LayerNorm(hidden_dim) if pre_norm else None

    def forward(
        self,
        tokens: FeatureTokens,
        selection: TokenSelection | None,
        num_auxiliary: int = 0,
        heads: DetectionHeads | None = None,
    ) -> EncoderOutput:
        """The memory, after the final norm where there is one; see :meth:`Encoder.forward`."""
        output = super().forward(tokens, selection, num_auxiliary, heads)
        if self.norm is None:
            return output
        # The norm changes every token, kept or not.
        return replace(output, memory=self.norm(output.memory), kept=None)

    def place(self, tokens: FeatureTokens, indices: Tensor | None) -> tuple[Any, ...]:
        """Positions of the rows and of all tokens, and padding; see :meth:`Encoder.place`."""
        everywhere = tokens.position
        position = everywhere if indices is None else gather_rows(everywhere, indices)
        return position, everywhere, tokens.key_padding_mask
