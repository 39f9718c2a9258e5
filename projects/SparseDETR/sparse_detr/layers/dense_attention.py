"""Dense multi-head attention: every query weighs every key."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import at_least_float32


class DenseAttention(nn.Module):
    """Multi-head attention that can tell its attention map at no change of its result.

    Weights have the names of torch's own layer, which hands out its map after dropout and computes
    another way when asked for it.

    Args:
        hidden_dim: Channels C, divisible by ``num_heads``.
        num_heads: Heads H.
        dropout: Probability on the attention weights, in training.

    Source: Vaswani et al., Attention Is All You Need, section 3.2; DETR, appendix A.1.
    """

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if hidden_dim % num_heads:
            raise ValueError(
                f"hidden_dim must be divisible by num_heads, got {hidden_dim} and {num_heads}"
            )
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_dim, hidden_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden_dim))
        self.out_proj = nn.Linear(hidden_dim, hidden_dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        padding_mask: Tensor | None = None,
        with_map: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attended features, and the attention map if that is asked for.

        Args:
            query: (B, Q, C).
            key: (B, N, C).
            value: (B, N, C).
            padding_mask: (B, N) bool, True on keys that nobody reads; None if all may be read. One
                key of each image must be readable.
            with_map: Also give the map, without gradient.

        Returns:
            (B, Q, C); and (B, Q, N) attention weights before dropout, summed over the heads, in
            float32 or float64, or None.
        """
        queries, keys, values = (self._heads(p) for p in self.projected(query, key, value))
        seen = None if padding_mask is None else ~padding_mask[:, None, None, :]
        attended = F.scaled_dot_product_attention(
            queries, keys, values, seen, self.dropout if self.training else 0.0
        )
        attention_map = attention_summed_over_heads(queries, keys, seen) if with_map else None
        return self.out_proj(attended.transpose(1, 2).flatten(2)), attention_map

    def projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries (B, Q, C), keys and values (B, N, C) of all heads side by side."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        inputs = zip((query, key, value), weights, biases, strict=True)
        return tuple(F.linear(rows, weight, bias) for rows, weight, bias in inputs)

    def _heads(self, rows: Tensor) -> Tensor:
        """(B, H, Q, D) from (B, Q, C)."""
        return rows.view(*rows.shape[:2], self.num_heads, -1).transpose(1, 2)


@torch.no_grad()
def attention_summed_over_heads(
    queries: Tensor, keys: Tensor, mask: Tensor | None, scale: float | None = None
) -> Tensor:
    """Attention weights without dropout, in float32 or float64.

    Args:
        queries: (B, H, Q, D).
        keys: (B, H, N, D).
        mask: What broadcasts to (B, H, Q, N): bool, True on keys that may be read, or numbers that
            are added to the logits; None for neither.
        scale: Factor of the products; None for that of D channels.

    Returns:
        (B, Q, N).
    """
    dtype = at_least_float32(queries.dtype)
    with torch.autocast(queries.device.type, enabled=False):
        scaled = queries.to(dtype) * (queries.shape[-1] ** -0.5 if scale is None else scale)
        logits = scaled @ keys.to(dtype).transpose(-1, -2)
    if mask is not None and mask.dtype == torch.bool:
        logits.masked_fill_(~mask, float("-inf"))
    elif mask is not None:
        logits += mask
    weights: Tensor = logits.softmax(-1)
    return weights.sum(1)
