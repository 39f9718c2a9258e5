"""Gathering kept tokens, writing them back, and selections per encoder layer."""

import pytest
import torch

from small_tokens import kept
from sparse_detr.structures import TokenSelection

KEPT = kept([[3, 0, 2], [1, 4, 0]], [3, 1])


def memory():
    return torch.arange(2 * 5 * 2).view(2, 5, 2).double()


def test_gathered_rows_are_the_kept_tokens_in_order():
    rows = KEPT.gather(memory())
    assert rows[0].tolist() == memory()[0, [3, 0, 2]].tolist()
    assert rows[1].tolist() == memory()[1, [1, 4, 0]].tolist()


@pytest.mark.parametrize("shape", [(), (4,), (4, 2)])
def test_values_of_any_trailing_shape_can_be_gathered(shape):
    values = torch.rand(2, 5, *shape)
    gathered = KEPT.gather(values)
    assert gathered.shape == (2, 3, *shape)
    assert torch.equal(gathered[0, 0], values[0, 3])


def test_own_rows_are_written_and_nothing_else():
    written = KEPT.scatter(memory(), torch.full((2, 3, 2), -1.0).double())
    changed = (written != memory()).all(-1)
    assert changed[0].tolist() == [True, False, True, True, False]
    assert changed[1].tolist() == [False, True, False, False, False]


def test_surplus_rows_are_not_written_even_if_they_are_not_finite():
    rows = torch.full((2, 3, 2), -1.0).double()
    rows[1, 1:] = float("nan")
    assert KEPT.scatter(memory(), rows).isfinite().all()


def test_writing_leaves_the_given_memory_alone():
    before = memory()
    KEPT.scatter(before, torch.zeros(2, 3, 2).double())
    assert torch.equal(before, memory())


@pytest.mark.parametrize("counts", [[3, 1], [3, 3], [0, 2]])
def test_rows_written_in_place_are_those_of_a_copy(counts):
    rows, tokens = torch.randn(2, 3, 2).double(), kept([[3, 0, 2], [1, 4, 0]], counts)
    written = memory()
    tokens.writer(5).write_(written, rows)
    assert torch.equal(written, tokens.scatter(memory(), rows))


def test_rows_of_every_image_are_found_in_the_sequence_of_all_images():
    writer = KEPT.writer(5)
    assert writer.targets.tolist() == [3, 0, 2, 6] and writer.sources.tolist() == [0, 1, 2, 3]
    assert kept([[3, 0], [1, 4]], [2, 2]).writer(5).sources is None


def test_no_gradient_reaches_surplus_rows():
    rows = torch.ones(2, 3, 2).double().requires_grad_()
    KEPT.scatter(memory(), rows).sum().backward()
    assert rows.grad[:, :, 0].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_no_gradient_reaches_the_memory_that_was_replaced():
    old = memory().requires_grad_()
    KEPT.scatter(old, torch.zeros(2, 3, 2).double()).sum().backward()
    assert old.grad[0, :, 0].tolist() == [0, 1, 0, 0, 1]
    assert old.grad[1, :, 0].tolist() == [1, 0, 1, 1, 1]


def test_membership_marks_own_tokens_only():
    assert KEPT.membership(5).tolist() == [
        [True, False, True, True, False],
        [False, True, False, False, False],
    ]


def test_surplus_is_known_on_the_host():
    assert KEPT.has_surplus
    assert not kept([[0, 1], [2, 3]], [2, 2]).has_surplus


def test_one_entry_serves_all_layers_and_several_serve_one_each():
    other = kept([[0], [0]], [1, 1])
    assert TokenSelection((KEPT,)).for_layer(5) is KEPT
    assert TokenSelection((KEPT, other)).for_layer(1) is other
