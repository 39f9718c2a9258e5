"""The parts of a transformer that gain from more than packing their linear layers one by one.

Role in the flow: they replace feed-forward networks, perceptrons and self-attentions of encoder,
decoder, heads and Swin backbone; :func:`pack_linears` finds them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.misc import MLP as TorchvisionMLP

from ...layers.dense_attention import DenseAttention
from ...layers.feed_forward import FeedForward
from ...layers.mlp import MLP
from .packed_linear import PackedLinear

# Rows that go through a chain at once: what lies between its layers (4 MB at width 1024) stays in
# the caches. Measured at 17,821 rows: 42 ms in pieces of 512 to 2,048 rows, 63 ms in one; equal at
# 6,380.
_ROWS_AT_ONCE = 1024


class PackedChain(nn.Module):
    """Linear layers with one activation between them, applied within the products.

    Many rows go through in pieces.

    Args:
        linears: The layers, in order.
        activation: "relu" or "gelu", after each but the last.
        dtype: Type of the weights and the output; None keeps that of the layers.
    """

    def __init__(
        self, linears: list[nn.Linear], activation: str, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        *inner, last = linears
        packed = [PackedLinear(linear, activation, dtype) for linear in inner]
        self.layers = nn.Sequential(*packed, PackedLinear(last, "none", dtype))
        self.train(last.training)

    def forward(self, features: Tensor) -> Tensor:
        """(..., C') from (..., C)."""
        rows = features.reshape(-1, features.shape[-1])
        if len(rows) <= 2 * _ROWS_AT_ONCE or features.device.type != "cpu":
            output: Tensor = self.layers(features)
            return output
        pieces = [self.layers(piece) for piece in torch.split(rows, _ROWS_AT_ONCE)]
        return torch.cat(pieces).view(*features.shape[:-1], -1)


class PackedSelfAttention(nn.Module):
    """Multi-head attention of rows on themselves, queries and keys projected in one product.

    Args:
        attention: With one width for queries, keys and values, batch first, with bias.
        dtype: Type of the weights and the output; None keeps that of the layer.

    Source: the same function as torch's layer, whose fast path needs queries equal to values.
    """

    def __init__(self, attention: nn.MultiheadAttention, dtype: torch.dtype | None) -> None:
        super().__init__()
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        boundary = 2 * attention.embed_dim
        self.query_key = PackedLinear(_linear(weight[:boundary], bias[:boundary]), "none", dtype)
        self.value = PackedLinear(_linear(weight[boundary:], bias[boundary:]), "none", dtype)
        self.out_proj = PackedLinear(attention.out_proj, "none", dtype)
        self.num_heads = attention.num_heads
        self.train(attention.training)

    @staticmethod
    def serves(module: nn.Module) -> bool:
        """Whether a module can be replaced."""
        return (
            type(module) is nn.MultiheadAttention
            and module.batch_first
            and module._qkv_same_embed_dim
            and module.in_proj_bias is not None
            and module.bias_k is None
            and not module.add_zero_attn
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """As torch's layer is called.

        Args:
            query: (B, Q, C).
            key: The same tensor.
            value: (B, Q, C).
            key_padding_mask: (B, Q) bool, True on rows that nobody reads.
            need_weights: False.
            attn_mask: None: pairs are masked while training only.

        Returns:
            (B, Q, C), and None in place of the weights.

        Raises:
            ValueError: Keys of their own, weights asked for, or pairs masked.
        """
        if key is not query or need_weights or attn_mask is not None:
            raise ValueError(
                "key must be the query, need_weights False and attn_mask None in an optimised "
                "detector; use the detector that it was made from"
            )
        batch, rows, width = query.shape
        joint = self.query_key(query).view(batch, rows, 2, self.num_heads, -1)
        queries, keys = joint.permute(2, 0, 3, 1, 4).unbind(0)
        values = self.value(value).view(batch, rows, self.num_heads, -1).transpose(1, 2)
        seen = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
        return self.out_proj(attended.transpose(1, 2).reshape(batch, rows, width)), None


class PackedDenseAttention(DenseAttention):
    """Dense attention whose queries, keys and values are projected by packed linear layers.

    Args:
        attention: The attention whose weights it takes.
        dtype: Type of the weights and the output; None keeps that of the layer.
    """

    def __init__(self, attention: DenseAttention, dtype: torch.dtype | None) -> None:
        nn.Module.__init__(self)  # the weights exist already
        self.num_heads = attention.num_heads
        self.dropout = attention.dropout
        parts = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
        self.in_proj = nn.ModuleList(
            PackedLinear(_linear(weight, bias), "none", dtype) for weight, bias in parts
        )
        self.out_proj = PackedLinear(attention.out_proj, "none", dtype)
        self.train(attention.training)

    def projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Queries (B, Q, C), keys and values (B, N, C) of all heads side by side."""
        inputs = zip((query, key, value), self.in_proj, strict=True)
        return tuple(projection(rows) for rows, projection in inputs)


def pack_linears(module: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Replaces the linear layers of a module, in place.

    Args:
        module: In evaluation mode: dropouts between the layers go.
        dtype: Type of the new weights; None keeps that of the layers.
    """
    for name, child in module.named_children():
        packed = _packed(child, dtype)
        if packed is None:
            pack_linears(child, dtype)
        else:
            setattr(module, name, packed)


def _packed(module: nn.Module, dtype: torch.dtype | None) -> nn.Module | None:
    """The module in place of one that packing serves, by its exact class; None for any other."""
    if type(module) is nn.Linear:
        return PackedLinear(module, "none", dtype)
    if type(module) is FeedForward:
        return PackedChain([module.linear1, module.linear2], "relu", dtype)
    if type(module) is MLP:
        return PackedChain(_linears(module.layers), "relu", dtype)
    if type(module) is DenseAttention:
        return PackedDenseAttention(module, dtype)
    if PackedSelfAttention.serves(module):
        assert isinstance(module, nn.MultiheadAttention)
        return PackedSelfAttention(module, dtype)
    if isinstance(module, nn.Sequential) and type(module) is TorchvisionMLP:
        kinds = [type(layer) for layer in module if type(layer) is not nn.Dropout]
        if kinds == [nn.Linear, nn.GELU, nn.Linear]:
            return PackedChain(_linears(module), "gelu", dtype)
    return None


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return linear


def _linears(layers: Iterable[nn.Module]) -> list[nn.Linear]:
    return [layer for layer in layers if isinstance(layer, nn.Linear)]
