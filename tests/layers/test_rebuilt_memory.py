"""Autograd keeps a way to build the memory in place of the memory."""

import weakref

import torch

from sparse_detr.layers.rebuilt_memory import rebuilt_when_needed


def test_what_the_backward_pass_reads_is_built_again_and_the_memory_itself_goes():
    base, weight = torch.randn(1, 5, 4), torch.randn(4, 4, requires_grad=True)
    memory = base * 2
    calls = []

    def rebuild():
        calls.append(1)
        return base * 2

    with rebuilt_when_needed(memory, rebuild):
        output = torch.nn.functional.linear(memory, weight)
    expected = memory.sum((0, 1)).expand(4, -1).clone()
    gone = weakref.ref(memory)
    del memory
    assert gone() is None and calls == []
    output.sum().backward()
    assert calls == [1]
    torch.testing.assert_close(weight.grad, expected)


def test_other_tensors_are_kept_as_usual():
    memory, other = torch.randn(1, 5, 4), torch.randn(1, 5, 4)
    weight = torch.randn(4, 4, requires_grad=True)
    with rebuilt_when_needed(memory, lambda: None):
        output = torch.nn.functional.linear(other, weight)
    output.sum().backward()
    torch.testing.assert_close(weight.grad, other.sum((0, 1)).expand(4, -1))


def test_without_a_way_to_build_it_the_memory_is_kept():
    memory, weight = torch.randn(1, 5, 4), torch.randn(4, 4, requires_grad=True)
    with rebuilt_when_needed(memory, None):
        output = torch.nn.functional.linear(memory, weight)
    output.sum().backward()
    torch.testing.assert_close(weight.grad, memory.sum((0, 1)).expand(4, -1))
