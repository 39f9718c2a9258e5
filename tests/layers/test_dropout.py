"""Dropout that keeps truth values."""

import pytest
import torch

from sparse_detr.layers.dropout import Dropout


def kept_bytes(module, rows):
    """Bytes that the backward pass of a module keeps beside its input."""
    sizes = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.untyped_storage().nbytes()), lambda t: t
    )
    with hooks:
        module(rows)
    return sum(sizes)


def test_elements_are_dropped_with_the_probability_and_the_others_scaled_up():
    rows = torch.ones(400, 500)
    dropped = Dropout(0.2)(rows)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert (dropped == 0).float().mean() == pytest.approx(0.2, abs=0.01)


def test_the_gradient_passes_where_the_element_did():
    rows = torch.randn(40, 50).requires_grad_()
    dropped = Dropout(0.4)(rows)
    dropped.sum().backward()
    torch.testing.assert_close(rows.grad, (dropped != 0) / 0.6)


def test_one_byte_per_element_is_kept():
    assert kept_bytes(Dropout(0.1), torch.randn(40, 50, requires_grad=True)) == 2000


@pytest.mark.parametrize("module", [Dropout(0.0), Dropout(0.7).eval()])
def test_without_anything_to_drop_the_input_itself_is_given(module):
    rows = torch.randn(3, 4, requires_grad=True)
    assert module(rows) is rows
