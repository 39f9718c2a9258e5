"""Packed networks and self-attention give what the plain ones gave."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops.misc import MLP as TorchvisionMLP

from sparse_detr.inference.optimization.packed_linear import PackedLinear
from sparse_detr.inference.optimization.packed_parts import (
    PackedChain,
    PackedDenseAttention,
    PackedSelfAttention,
    pack_linears,
)
from sparse_detr.layers.dense_attention import DenseAttention
from sparse_detr.layers.feed_forward import FeedForward
from sparse_detr.layers.mlp import MLP


def packed(module: nn.Module) -> nn.Module:
    """The module as a child that :func:`pack_linears` has been through."""
    parent = nn.ModuleDict({"child": module}).eval()
    pack_linears(parent)
    return parent["child"]


@pytest.mark.parametrize(
    "module",
    [
        FeedForward(64, 256, dropout=0.5),
        MLP(64, 96, 4, num_layers=3),
        MLP(64, 96, 64, num_layers=1),
        TorchvisionMLP(64, [256, 64], activation_layer=nn.GELU, inplace=None, dropout=0.5),
    ],
    ids=["feed-forward", "perceptron", "one layer", "torchvision's"],
)
@torch.no_grad()
def test_chains_of_linear_layers(module: nn.Module) -> None:
    chain = packed(module.eval())
    assert type(chain) is PackedChain and not chain.training
    for rows in (3, 500):
        features = torch.randn(2, rows, 64)
        torch.testing.assert_close(chain(features), module(features), rtol=1e-5, atol=1e-5)


def test_a_network_with_another_activation_keeps_it() -> None:
    module = packed(TorchvisionMLP(64, [256, 64], activation_layer=nn.Tanh))
    assert [type(layer) for layer in module][:2] == [PackedLinear, nn.Tanh]


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_self_attention(masked: bool) -> None:
    attention = nn.MultiheadAttention(64, 4, dropout=0.1, batch_first=True).eval()
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    replaced = packed(attention)
    assert type(replaced) is PackedSelfAttention
    query, value = torch.randn(2, 2, 50, 64)
    mask = torch.arange(50).repeat(2, 1) >= torch.tensor([[50], [13]]) if masked else None
    arguments = dict(key_padding_mask=mask, need_weights=False)
    expected, _ = attention(query, query, value, **arguments)
    actual, weights = replaced(query, query, value, **arguments)
    assert weights is None
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_self_attention_says_what_it_cannot_do() -> None:
    replaced = packed(nn.MultiheadAttention(64, 4, batch_first=True))
    query, key = torch.randn(2, 1, 5, 64)
    with pytest.raises(ValueError, match="key must be the query"):
        replaced(query, key, query)
    with pytest.raises(ValueError, match="need_weights"):
        replaced(query, query, query, need_weights=True)


@pytest.mark.parametrize(
    "arguments", [dict(batch_first=False), dict(kdim=32), dict(bias=False), dict(add_bias_kv=True)]
)
def test_other_attentions_stay(arguments: dict) -> None:
    options = {"batch_first": True, **arguments}
    module = nn.MultiheadAttention(64, 4, **options)
    assert not PackedSelfAttention.serves(module)


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_dense_attention(masked: bool) -> None:
    attention = DenseAttention(64, 4, dropout=0.1).eval()
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    replaced = packed(attention)
    assert type(replaced) is PackedDenseAttention and not replaced.training
    query, (key, value) = torch.randn(2, 40, 64), torch.randn(2, 2, 700, 64)
    mask = torch.arange(700).repeat(2, 1) >= torch.tensor([[700], [13]]) if masked else None
    got = replaced(query, key, value, mask, with_map=True)
    expected = attention(query, key, value, mask, with_map=True)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
