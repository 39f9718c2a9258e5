"""Gradients of every operator equal finite differences, and cannot be differentiated again."""

from __future__ import annotations

import pytest
import torch
from deform_attn_inputs import Shapes
from operator_calls import OperatorCall
from operator_strategies import BACKENDS, VARIANTS, make_variant, needs_native, results_of
from torch.autograd import forward_ad

from sparse_detr.layers.backend import use_backend

LEVELS: Shapes = [(2, 3), (1, 2), (3, 1), (1, 1), (2, 1)]


def check_gradients(backend: str, call: OperatorCall) -> None:
    # The locations of `make_variant` reach beyond [0, 1], off the kinks; given weights are random
    # numbers of any sign and sum.
    leaves = [leaf.detach().requires_grad_() for leaf in call.leaves]
    with use_backend(backend):
        assert torch.autograd.gradcheck(call.output, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)


@needs_native
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_for_any_number_of_levels(variant: str, levels: int, padded: bool) -> None:
    sizes = {"batch": 2, "queries": 2, "heads": 2, "channels": 2, "points": 2}
    call = make_variant(variant, LEVELS[:levels], padded=padded, width=3, **sizes)
    check_gradients("native", call)


@pytest.mark.parametrize("variant", VARIANTS)
def test_of_the_torch_path(variant: str) -> None:
    sizes = {"batch": 2, "queries": 2, "heads": 1, "channels": 2, "points": 2}
    call = make_variant(variant, LEVELS[:2], padded=True, width=3, **sizes)
    check_gradients("torch", call)


@needs_native
@pytest.mark.parametrize("channels", [1, 7, 8, 30, 32, 64, 256])
@pytest.mark.parametrize("variant", VARIANTS)
def test_for_any_head_dim(variant: str, channels: int) -> None:
    sizes = {"batch": 1, "queries": 1, "heads": 1 if channels > 32 else 2, "points": 2}
    call = make_variant(variant, [(2, 2), (1, 2)], channels=channels, width=2, **sizes)
    check_gradients("native", call)


@needs_native
@pytest.mark.parametrize("variant", ["given", "points", "boxes"])
def test_for_the_published_number_of_levels_and_points(variant: str) -> None:
    call = make_variant(variant, LEVELS[:4], batch=1, queries=2, heads=1, channels=4, points=4)
    check_gradients("native", call)


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_gradients_that_are_asked_for(variant: str) -> None:
    call = make_variant(variant, LEVELS[:2], queries=3, heads=2, channels=4)
    expected = results_of("native", call)[1:]
    for place, gradient in enumerate(expected):
        leaves = [leaf.detach() for leaf in call.leaves]
        leaves[place].requires_grad_()
        with use_backend("native"):
            (got,) = torch.autograd.grad(call.output(*leaves), leaves[place], call.grad)
        assert torch.equal(got, gradient)


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_double_backward_is_refused(variant: str) -> None:
    call = make_variant(variant, LEVELS[:2], queries=3, heads=2, channels=4)
    leaves = [leaf.requires_grad_() for leaf in call.leaves]
    with use_backend("native"):
        output = call.output(*leaves)
        gradients = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
        for gradient in gradients:
            with pytest.raises(RuntimeError, match="cannot be differentiated again"):
                gradient.sum().backward(retain_graph=True)


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_graph_is_freed_by_its_backward_pass_unless_it_is_retained(variant: str) -> None:
    call = make_variant(variant, LEVELS[:2], padded=True, queries=3, heads=2, channels=4)
    leaves = [leaf.requires_grad_() for leaf in call.leaves]
    with use_backend("native"):
        output = call.output(*leaves)
    retained = torch.autograd.grad(output, leaves, call.grad, retain_graph=True)
    last = torch.autograd.grad(output, leaves, call.grad)
    for first, second in zip(retained, last, strict=True):
        assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(output, leaves, call.grad)


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_change_in_place_of_what_the_gradient_needs_is_refused(variant: str) -> None:
    call = make_variant(variant, LEVELS[:2], queries=3, heads=2, channels=4)
    leaves = [leaf.requires_grad_() for leaf in call.leaves]
    copies = [leaf.clone() for leaf in leaves]
    with use_backend("native"):
        output = call.output(*copies)
    copies[0].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_mode_differentiation_is_refused(variant: str) -> None:
    call = make_variant(variant, LEVELS[:2], queries=3, heads=2, channels=4)
    for place in range(len(call.leaves)):
        with forward_ad.dual_level(), use_backend("native"):
            leaves = list(call.leaves)
            leaves[place] = forward_ad.make_dual(leaves[place], torch.ones_like(leaves[place]))
            with pytest.raises(NotImplementedError, match="forward-mode"):
                call.output(*leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_output_gradient_of_expanded_ones_is_accepted(variant: str, backend: str) -> None:
    call = make_variant(variant, LEVELS[:2], queries=3, heads=2, channels=4)
    leaves = [leaf.requires_grad_() for leaf in call.leaves]
    with use_backend(backend):
        call.output(*leaves).sum().backward()
    call.grad = torch.ones_like(call.grad)
    for leaf, expected in zip(leaves, results_of(backend, call)[1:], strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, expected, rtol=0, atol=1e-12)
