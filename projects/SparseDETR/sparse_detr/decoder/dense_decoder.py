"""The decoder with dense cross-attention: every query weighs every token."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..layers.dense_attention import DenseAttention
from ..layers.residual import add_update
from ..structures import FeatureTokens
from .decoder_stack import Decoder, DecoderLayer


class DenseDecoderLayer(DecoderLayer):
    """Self-attention, dense cross-attention and feed-forward network, post-norm or pre-norm.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training; also on the attention weights.
        pre_norm: Norm what each attention and the network read instead of the sums; the numbers of
            the norms stay those of what they belong to.

    Source: DETR, section 3.2 and appendix A.3; released code (``--pre_norm``).
    """

    cross_attn: DenseAttention

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        feedforward_dim: int = 2048,
        dropout: float = 0.1,
        pre_norm: bool = False,
    ) -> None:
        super().__init__(
            nn.MultiheadAttention(hidden_dim, num_heads, dropout, batch_first=True),
            DenseAttention(hidden_dim, num_heads, dropout),
            hidden_dim,
            feedforward_dim,
            dropout,
        )
        self.pre_norm = pre_norm

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        keys: Tensor,
        memory: Tensor,
        padding_mask: Tensor | None,
        query_mask: Tensor | None = None,
        with_map: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Updated queries, and their attention map if that is asked for.

        Args:
            content: (B, Q, C).
            position: (B, Q, C).
            keys: (B, N, C) memory with position.
            memory: (B, N, C), the values.
            padding_mask: (B, N) bool, True on padding; None without padding.
            query_mask: (B, Q) bool, False on rows that no query may see; None if all may be seen.
            with_map: Give the (B, Q, N) map of the cross-attention.
        """
        if self.pre_norm:
            attended = self.read_queries(self.norm2(content), position, query_mask)
            content = add_update(content, self.dropout2(attended))
            query = self.norm1(content) + position
        else:
            content = self.among_queries(content, position, query_mask)
            query = content + position
        attended, attention_map = self.cross_attn(query, keys, memory, padding_mask, with_map)
        if not self.pre_norm:
            return self.updated(content, attended), attention_map
        content = add_update(content, self.dropout1(attended))
        return add_update(content, self.ffn(self.norm3(content))), attention_map


class DenseDecoder(Decoder):
    """A stack of layers with dense cross-attention and one norm in front of the heads.

    Boxes start from the queries' references where these have some, the same in every layer.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_layers: Layers D.
        feedforward_dim: Width of the feed-forward networks.
        dropout: Probability, in training; also on the attention weights.
        checkpoint_activations: Recompute activations in the backward pass to save memory.
        pre_norm: See :class:`DenseDecoderLayer`.

    Source: DETR, section 3.2; released code for the norm, which all layers share.
    """

    needs_references = False

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
            DenseDecoderLayer(hidden_dim, num_heads, feedforward_dim, dropout, pre_norm)
            for _ in range(num_layers)
        )
        norm = nn.LayerNorm(hidden_dim)
        super().__init__(layers, False, checkpoint_activations, norm)

    def shared_view(
        self, memory: Tensor, tokens: FeatureTokens
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys, values and padding."""
        return memory + tokens.position, memory, tokens.key_padding_mask

    def surroundings(
        self, view: tuple[Tensor, Tensor, Tensor | None], reference: Tensor | None
    ) -> tuple[Any, ...]:
        """Keys, values and padding, whatever the reference."""
        return view
