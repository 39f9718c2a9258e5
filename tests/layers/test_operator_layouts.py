"""Memory layouts, orders, padding and number types do not change what an operator gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from deform_attn_inputs import Shapes
from hypothesis import given
from hypothesis import strategies as st
from operator_calls import OperatorCall
from operator_strategies import (
    BACKENDS,
    VARIANTS,
    assert_close,
    levels,
    limited,
    make_variant,
    needs_native,
    output_of,
    project_first,
    results_of,
    with_projection,
)
from torch import Tensor

from sparse_detr.layers.backend import use_backend

SHAPES: Shapes = [(4, 5), (3, 2), (1, 1)]
FOUR_LEVELS: Shapes = [(5, 6), (3, 4), (2, 2), (1, 1)]


def changed_order(tensor: Tensor) -> Tensor:
    """The same numbers with the dimensions in reverse order in memory."""
    order = list(reversed(range(tensor.dim())))
    return tensor.permute(order).contiguous().permute(order)


def apart(tensor: Tensor) -> Tensor:
    """The same numbers with two others between neighbours."""
    wide = tensor.new_full((*tensor.shape, 3), float("nan"))
    wide[..., 1] = tensor
    return wide[..., 1]


def shifted(tensor: Tensor) -> Tensor:
    """The same numbers, one element into their storage: aligned to no vector."""
    return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view_as(tensor)


def within_wider_rows(tensor: Tensor) -> Tensor:
    """The same numbers as a part of the rows that a fused linear layer gives."""
    rows = tensor.flatten(2) if tensor.dim() > 2 else tensor
    wide = rows.new_full((*rows.shape[:-1], rows.shape[-1] + 7), float("nan"))
    wide[..., 3 : 3 + rows.shape[-1]] = rows
    part = wide[..., 3 : 3 + rows.shape[-1]]
    return part.unflatten(-1, tensor.shape[2:]) if tensor.dim() > 3 else part


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("change", [changed_order, apart, shifted, within_wider_rows])
def test_strided_inputs_give_what_contiguous_ones_give(
    change: Callable[[Tensor], Tensor], variant: str, backend: str
) -> None:
    for shapes, channels in ((SHAPES, 5), (FOUR_LEVELS, 32)):
        call = make_variant(
            variant, shapes, batch=2, queries=7, heads=2, channels=channels, padded=True
        )
        leaves = [change(leaf) if leaf.dim() > 1 else leaf for leaf in call.leaves]
        assert any(not leaf.is_contiguous() for leaf in leaves) or change is shifted
        assert call.valid_sizes is not None
        valid = changed_order(call.valid_sizes)
        other = replace(call, leaves=leaves, grad=change(call.grad), valid_sizes=valid)
        got = results_of(backend, other)
        assert_close(got, results_of(backend, call), 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_expanded_over_images_queries_and_heads_give_what_copies_give(
    backend: str, variant: str
) -> None:
    call = make_variant(variant, SHAPES, batch=1, queries=1, heads=1, channels=5)
    batched = 1 if call.operator != "sample_then_project" else 3
    sizes = {6: (2, 3, 2), 5: (2, 3, 2), 4: (2, 3, -1)}
    leaves = []
    for place, leaf in enumerate(call.leaves):
        if place >= batched:
            size = sizes[leaf.dim()]
            leaf = leaf.expand(*size, *(-1,) * (leaf.dim() - len(size)))
        elif place == 0:
            leaf = leaf.expand(2, *(-1,) * (leaf.dim() - 1))
            leaf = leaf.expand(-1, -1, 2, -1) if leaf.dim() == 4 else leaf
        else:
            leaf = torch.cat([leaf, leaf])
        leaves.append(leaf)
    # As an output that is summed has it.
    grad = torch.ones(1, 1, 1, dtype=torch.float64).expand(2, 3, 10)
    expanded = replace(call, leaves=leaves, grad=grad)
    copies = replace(expanded, leaves=[leaf.clone() for leaf in leaves], grad=grad.clone())
    assert_close(results_of(backend, expanded), results_of(backend, copies), 1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_offsets_and_logits_may_be_parts_of_one_linear_output(backend: str) -> None:
    for variant in ("points", "boxes", "projected points"):
        call = make_variant(variant, FOUR_LEVELS, batch=2, queries=9, heads=2, channels=8)
        *others, offsets, logits = call.leaves
        rows = torch.cat([offsets.flatten(2), logits.flatten(2)], dim=-1).requires_grad_()
        first, second = rows.split([offsets[0, 0].numel(), logits[0, 0].numel()], dim=-1)
        with use_backend(backend):
            output = call.output(*others, first.view(offsets.shape), second.view(logits.shape))
        (grad,) = torch.autograd.grad(output, rows, call.grad)
        expected = results_of(backend, call)
        parts = torch.cat([expected[-2].flatten(2), expected[-1].flatten(2)], dim=-1)
        assert_close([output, grad], [expected[0], parts], 1e-13)


def reordered(call: OperatorCall, dim: int, order: Tensor) -> OperatorCall:
    """Gives the call with its images (dim 0) or queries (dim 1) in another order."""
    fixed = {"sample_then_project": 3}.get(call.operator, 1)
    leaves = []
    for place, leaf in enumerate(call.leaves):
        moves = place >= fixed or (dim == 0 and place == 0)
        leaves.append(leaf.index_select(dim, order) if moves else leaf)
    valid = call.valid_sizes
    if dim == 0 and valid is not None:
        valid = valid.index_select(0, order)
    return replace(call, leaves=leaves, grad=call.grad.index_select(dim, order), valid_sizes=valid)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dim", [0, 1])
@limited(5)
@given(seed=st.integers(0, 2**31))
def test_images_and_queries_may_come_in_any_order(
    backend: str, variant: str, dim: int, seed: int
) -> None:
    call = make_variant(
        variant, SHAPES, batch=4, queries=13, heads=2, channels=8, padded=True, seed=seed
    )
    order = torch.randperm(call.grad.shape[dim])
    other = reordered(call, dim, order)
    got, expected = results_of(backend, other), results_of(backend, call)
    assert_close([got[0]], [expected[0].index_select(dim, order)], 1e-13)
    again = replace(call, leaves=expected[1:], grad=expected[0])
    assert_close(got[1:], reordered(again, dim, order).leaves, 1e-12)


def padding_mask(call: OperatorCall) -> Tensor:
    """(B, N), True in the cells beyond the valid sizes."""
    assert call.valid_sizes is not None
    images = []
    for sizes in call.valid_sizes.tolist():
        mask = [torch.ones(shape, dtype=torch.bool) for shape in call.shapes]
        for level, (rows, columns) in enumerate(sizes):
            mask[level][: max(rows, 0), : max(columns, 0)] = False
        images.append(torch.cat([level.flatten() for level in mask]))
    return torch.stack(images)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
@limited(10)
@given(shapes=levels(), seed=st.integers(0, 2**31), sixteen=st.booleans())
def test_valid_sizes_do_what_zeros_in_the_padding_do(
    backend: str, variant: str, shapes: Shapes, seed: int, sixteen: bool
) -> None:
    shapes = FOUR_LEVELS if sixteen else shapes
    call = make_variant(variant, shapes, batch=3, queries=4, heads=2, channels=8, seed=seed)
    # Sizes beyond the map and below zero count as all and nothing.
    generator = torch.Generator().manual_seed(seed)
    call.valid_sizes = torch.randint(-1, 8, (3, len(shapes), 2), generator=generator)
    projected = call.operator == "sample_then_project"
    mask = padding_mask(call)
    # What lies in the padding is never read.
    source = call.leaves[0].clone()
    source[mask] = float("nan")
    call.leaves[0] = source
    plain = replace(project_first(call) if projected else call, valid_sizes=None)
    leaves = [leaf.detach().requires_grad_() for leaf in call.leaves]
    with use_backend(backend):
        got = call.output(*leaves)
        value = plain.leaves[0].masked_fill(mask[..., None, None], 0.0)
        expected = plain.output(value, *plain.leaves[1:])
    assert_close([got], [expected], 1e-12)
    grads = torch.autograd.grad(got, leaves, call.grad)
    assert (grads[0][mask] == 0).all()
    if not projected:
        zeroed = replace(plain, leaves=[value, *plain.leaves[1:]])
        one, *others = results_of(backend, zeroed)[1:]
        one = one.masked_fill(mask[..., None, None], 0.0)
        assert_close(grads, [one, *others], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_values_give_what_float32_gives_on_the_same_numbers(
    variant: str, dtype: torch.dtype, backend: str
) -> None:
    for shapes, channels in ((SHAPES, 7), (FOUR_LEVELS, 32)):
        half = make_variant(
            variant,
            shapes,
            batch=2,
            queries=11,
            heads=2,
            channels=channels,
            dtype=dtype,
            padded=True,
        )
        single = half.changed(
            lambda tensor: tensor.float() if tensor.is_floating_point() else tensor
        )
        got, expected = results_of(backend, half), results_of("torch", single)
        error = (got[0].float() - expected[0]).norm() / expected[0].norm()
        # The twin rounds its projected values too, before it samples them.
        twice = backend == "torch" and half.operator == "sample_then_project"
        assert error <= (4e-3 if twice else 2e-3)
        for one, two, leaf in zip(got, expected, [half.grad, *half.leaves], strict=True):
            assert one.dtype == leaf.dtype
            # Sums are in float32 and rounded once, at the end.
            limit = torch.finfo(dtype).eps / 2 * two.abs() + 1e-4 * two.abs().mean()
            assert twice or ((one.float() - two).abs() <= limit).all()


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
def test_both_backends_agree_in_float64(variant: str) -> None:
    for shapes, channels in ((SHAPES, 71), (FOUR_LEVELS, 32), ([(7, 3)], 256)):
        call = make_variant(
            variant, shapes, batch=2, queries=11, heads=2, channels=channels, padded=True
        )
        assert_close(results_of("native", call), results_of("torch", call), 1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", ["points", "boxes"])
def test_a_batch_gives_each_image_what_it_has_alone(backend: str, variant: str) -> None:
    call = make_variant(variant, SHAPES, batch=3, queries=17, heads=2, channels=8, padded=True)
    for projected in (False, True):
        whole = with_projection(call, 5) if projected else call
        fixed = slice(1, 3) if projected else slice(0)
        together = output_of(backend, whole)
        for image in range(3):
            assert whole.valid_sizes is not None
            one = slice(image, image + 1)
            leaves = [leaf[one] for leaf in whole.leaves]
            leaves[fixed] = whole.leaves[fixed]
            alone = replace(whole, leaves=leaves, valid_sizes=whole.valid_sizes[one])
            assert_close([output_of(backend, alone)], [together[one]], 1e-14)
