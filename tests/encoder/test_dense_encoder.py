"""The encoder with dense attention, dense and sparse."""

import dataclasses

import pytest
import torch

from small_tokens import kept, tokens_of
from sparse_detr.encoder import DenseEncoder
from sparse_detr.structures import KeptTokens, TokenSelection

C, N = 8, 26
SHAPES = [(4, 5), (2, 3)]
VALID = [[(4, 5), (2, 3)], [(2, 3), (1, 2)]]
SPARSE = TokenSelection((kept([[3, 7, 24], [0, 20, 1]], [3, 2]),))


def encoder(num_layers=3, **switches):
    module = DenseEncoder(
        C, 2, num_layers=num_layers, feedforward_dim=16, dropout=0.0, **switches
    ).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def test_a_dense_layer_is_torchs_layer_with_positions_on_queries_and_keys():
    tokens, module = tokens_of(SHAPES, VALID), encoder(1)
    (layer,) = module.layers
    reference = torch.nn.TransformerEncoderLayer(C, 2, 16, 0.0, batch_first=True).double()
    for name in ("self_attn", "norm1", "norm2"):
        getattr(reference, name).load_state_dict(getattr(layer, name).state_dict())
    reference.linear1.load_state_dict(layer.ffn.linear1.state_dict())
    reference.linear2.load_state_dict(layer.ffn.linear2.state_dict())
    features, placed = tokens.features, tokens.features + tokens.position
    attended, _ = reference.self_attn(placed, placed, features, tokens.padding_mask)
    rows = reference.norm1(features + attended)
    hidden = reference.linear2(reference.linear1(rows).relu())
    expected = reference.norm2(rows + hidden)
    torch.testing.assert_close(module(tokens, None).memory, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("valid", [None, VALID])
def test_keeping_every_token_equals_the_dense_encoder_exactly(valid):
    tokens, module = tokens_of(SHAPES, valid, batch=2), encoder()
    dense = module(tokens, None).memory
    every = TokenSelection((KeptTokens(torch.arange(N).expand(2, -1), (N, N)),))
    assert torch.equal(module(tokens, every).memory, dense)
    shuffled = TokenSelection((KeptTokens(torch.randperm(N).expand(2, -1), (N, N)),))
    torch.testing.assert_close(module(tokens, shuffled).memory, dense, rtol=0, atol=1e-13)


def test_kept_tokens_read_all_tokens_as_the_layer_before_left_them():
    tokens, module = tokens_of(SHAPES, batch=1), encoder(2)
    selection = TokenSelection((kept([[3, 7]], [2]),))
    rows, memory = tokens.features[:, [3, 7]], tokens.features
    position = tokens.position
    for layer in module.layers:
        rows = layer(rows, memory, position[:, [3, 7]], position, None)
        memory = memory.clone()
        memory[0, [3, 7]] = rows[0]
    torch.testing.assert_close(module(tokens, selection).memory, memory, rtol=0, atol=1e-13)


def test_tokens_that_are_not_kept_leave_as_they_came():
    tokens = tokens_of(SHAPES, VALID)
    memory = encoder()(tokens, SPARSE).memory
    assert torch.equal(~(memory == tokens.features).all(-1), SPARSE.layers[0].membership(N))


@pytest.mark.parametrize("selection", [None, SPARSE])
def test_what_stands_on_padding_does_not_reach_real_tokens(selection):
    tokens, module = tokens_of(SHAPES, VALID), encoder()
    spoiled = tokens.features.masked_fill(tokens.padding_mask[..., None], 1e6)
    other = dataclasses.replace(tokens, features=spoiled)
    own = ~tokens.padding_mask
    assert torch.equal(module(tokens, selection).memory[own], module(other, selection).memory[own])


def test_recomputing_activations_gives_identical_gradients():
    tokens, gradients = tokens_of(SHAPES, VALID), []
    module = encoder().train()
    for flag in (False, True):
        module.checkpoint_activations = flag
        module.zero_grad()
        module(tokens, SPARSE).memory.square().sum().backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
    assert all(map(torch.equal, *gradients))


def test_without_gradients_rows_are_written_in_place_with_the_same_result():
    tokens, module = tokens_of(SHAPES, VALID), encoder()
    before = tokens.features.clone()
    expected = module(tokens, SPARSE).memory
    with torch.no_grad():
        got = module(tokens, SPARSE).memory
    assert torch.equal(got, expected) and torch.equal(tokens.features, before)


def pre_normed(tokens, module):
    """The memory of a pre-norm encoder, written out."""
    rows = tokens.features
    for layer in module.layers:
        normed = layer.norm1(rows)
        placed = normed + tokens.position
        rows = rows + layer.self_attn(placed, placed, normed, tokens.padding_mask)[0]
        rows = rows + layer.ffn(layer.norm2(rows))
    return module.norm(rows)


def test_pre_norm_norms_what_is_read_and_the_memory_at_the_end():
    tokens, module = tokens_of(SHAPES, VALID), encoder(2, pre_norm=True)
    got = module(tokens, None)
    torch.testing.assert_close(got.memory, pre_normed(tokens, module), rtol=0, atol=1e-12)
    assert got.kept is None


def test_pre_norm_with_every_token_kept_is_the_dense_encoder():
    tokens, module = tokens_of(SHAPES, VALID), encoder(2, pre_norm=True)
    every = TokenSelection((KeptTokens(torch.arange(N).expand(2, -1), (N, N)),))
    got, dense = module(tokens, every), module(tokens, None)
    torch.testing.assert_close(got.memory, dense.memory, rtol=0, atol=1e-12)
    assert got.kept is None  # the norm changed every token


def test_post_norm_has_no_norm_at_the_end():
    assert encoder(1).norm is None
