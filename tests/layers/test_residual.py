"""The sum of a residual connection."""

from __future__ import annotations

import torch

from sparse_detr.layers.residual import add_update


def test_the_sum_is_the_same_with_and_without_gradients() -> None:
    rows, update = torch.randn(3, 4), torch.randn(3, 4)
    expected = rows + update
    with torch.no_grad():
        torch.testing.assert_close(add_update(rows, update.clone()), expected, rtol=0, atol=0)
    torch.testing.assert_close(add_update(rows, update), expected, rtol=0, atol=0)


def test_with_gradients_both_inputs_stay_as_they_are_and_receive_them() -> None:
    rows = torch.randn(3, requires_grad=True)
    update = torch.randn(3, requires_grad=True)
    before = update.detach().clone()
    add_update(rows, update).sum().backward()
    assert torch.equal(update.detach(), before)
    assert rows.grad is not None and update.grad is not None


def test_a_half_precision_update_is_added_in_the_precision_of_the_rows() -> None:
    with torch.no_grad():
        total = add_update(torch.zeros(2), torch.ones(2, dtype=torch.bfloat16))
    assert total.dtype == torch.float32
