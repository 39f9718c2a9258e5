"""Dense attention: torch's function, with a map that costs nothing when nobody asks for it."""

import pytest
import torch
from torch import nn

from sparse_detr.layers.dense_attention import DenseAttention

C, H, Q, N = 12, 3, 5, 9
PADDED = torch.zeros(2, N).bool()
PADDED[1, 6:] = True


def attention(dropout=0.0):
    module = DenseAttention(C, H, dropout).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def inputs():
    return (torch.randn(2, n, C).double() for n in (Q, N, N))


@pytest.mark.parametrize("mask", [None, PADDED])
def test_it_is_torchs_attention_with_the_same_weights_under_the_same_names(mask):
    module = attention()
    reference = nn.MultiheadAttention(C, H, batch_first=True).double()
    reference.load_state_dict(module.state_dict())
    query, key, value = inputs()
    attended, attention_map = module(query, key, value, mask, with_map=True)
    expected, weights = reference(query, key, value, mask, average_attn_weights=False)
    torch.testing.assert_close(attended, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(attention_map, weights.sum(1), rtol=0, atol=1e-12)


def test_padding_receives_no_attention_and_gives_no_value():
    module = attention()
    query, key, value = inputs()
    attended, attention_map = module(query, key, value, PADDED, with_map=True)
    assert (attention_map[PADDED[:, None].expand(-1, Q, -1)] == 0).all()
    for spoiled in (key, value):
        spoiled[PADDED] = 1e6
    assert torch.equal(module(query, key, value, PADDED)[0], attended)


def test_asking_for_the_map_changes_no_bit_of_the_result_and_carries_no_gradient():
    module = attention(dropout=0.5).train()
    query, key, value = inputs()
    torch.manual_seed(1)
    plain, nothing = module(query, key, value)
    torch.manual_seed(1)
    attended, attention_map = module(query, key, value, with_map=True)
    assert nothing is None and not attention_map.requires_grad
    assert torch.equal(plain, attended)


def test_the_map_is_taken_before_dropout():
    module = attention(dropout=0.9).train()
    _, attention_map = module(*inputs(), with_map=True)
    torch.testing.assert_close(attention_map.sum(-1), torch.full((2, Q), float(H)).double())
    assert (attention_map > 0).all()


def test_under_autocast_the_map_stays_in_float32():
    module = attention().float()
    query, key, value = (rows.float() for rows in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        attended, attention_map = module(query, key, value, PADDED, with_map=True)
    assert attended.dtype is torch.bfloat16 and attention_map.dtype is torch.float32
    torch.testing.assert_close(attention_map.sum(-1), torch.full((2, Q), float(H)))


def test_it_starts_as_one_matrix_of_torchs_layer_does():
    module = DenseAttention(256, 8)
    bound = (6 / (4 * 256)) ** 0.5
    assert 0.99 * bound < module.in_proj_weight.abs().max() <= bound
    assert not module.in_proj_bias.any() and not module.out_proj.bias.any()


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="divisible by num_heads, got 10 and 4"):
        DenseAttention(10, 4)
