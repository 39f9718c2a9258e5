"""Windows, shift masks and which tokens can see each other."""

import pytest
import torch

from sparse_detr.backbone.window_attention import (
    MaskedShiftWindowAttention,
    merge_windows,
    partition_windows,
    shift_attention_mask,
)


def test_merging_undoes_partitioning():
    x = torch.arange(2 * 6 * 8 * 3.0).view(2, 6, 8, 3)
    windows = partition_windows(x, (3, 2))
    assert windows.shape == (2, 8, 6, 3)
    assert torch.equal(windows[0, 1], x[0, :3, 2:4].reshape(6, 3))
    assert torch.equal(merge_windows(windows, (6, 8), (3, 2)), x)


def test_a_window_inside_the_map_is_not_split():
    mask = shift_attention_mask((14, 21), (7, 7), (3, 3), torch.zeros(()))
    assert mask.shape == (6, 49, 49)
    assert (mask[0] == 0).all()


def test_a_map_of_one_window_is_split_into_four_regions():
    mask = shift_attention_mask((7, 7), (7, 7), (3, 3), torch.zeros((), dtype=torch.float64))
    assert mask.dtype == torch.float64
    assert set(mask.unique().tolist()) == {-100.0, 0.0}
    visible = (mask[0] == 0).sum(dim=1).view(7, 7)
    assert visible[0, 0] == 16
    assert visible[0, 6] == visible[6, 0] == 12
    assert visible[6, 6] == 9


def make_attention(shift: int) -> MaskedShiftWindowAttention:
    torch.manual_seed(0)
    attention = MaskedShiftWindowAttention(8, [7, 7], [shift, shift], num_heads=2).double()
    torch.nn.init.normal_(attention.qkv.weight)
    return attention


def influenced_tokens(attention, size, source):
    """(h, w) bool: tokens whose output changes with the token at ``source``."""
    x = torch.randn(1, *size, 8, dtype=torch.float64)
    changed = x.clone()
    changed[0, source[0], source[1]] += 1.0
    with torch.no_grad():
        difference = (attention(changed) - attention(x)).abs().amax(dim=-1)[0]
    return difference > 1e-12


def test_a_shifted_map_of_one_window_is_still_masked():
    seen = influenced_tokens(make_attention(shift=3), (5, 7), (0, 0))
    expected = torch.zeros(5, 7, dtype=torch.bool)
    expected[:3, :3] = True
    assert torch.equal(seen, expected)


def test_an_unshifted_window_sees_all_of_itself_and_nothing_else():
    seen = influenced_tokens(make_attention(shift=0), (7, 10), (2, 2))
    expected = torch.zeros(7, 10, dtype=torch.bool)
    expected[:, :7] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", [(1, 1), (6, 7), (8, 15)])
def test_the_map_keeps_its_size(shift, size):
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    assert make_attention(shift)(x).shape == x.shape


def test_attention_equals_a_softmax_written_out_for_one_window():
    attention = make_attention(shift=0)
    x = torch.randn(1, 7, 7, 8, dtype=torch.float64)
    query, key, value = (x.view(49, 8) @ attention.qkv.weight.T + attention.qkv.bias).split(8, -1)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        logits = (
            query[:, part] @ key[:, part].T / 2 + attention.get_relative_position_bias()[0, head]
        )
        heads.append(logits.softmax(-1) @ value[:, part])
    expected = attention.proj(torch.cat(heads, -1)).view(1, 7, 7, 8)
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


def test_checkpoints_carry_no_computed_index():
    assert set(make_attention(0).state_dict()) == {
        "relative_position_bias_table",
        "qkv.weight",
        "qkv.bias",
        "proj.weight",
        "proj.bias",
    }
