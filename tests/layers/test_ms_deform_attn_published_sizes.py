"""Sixteen samples of 32 channels, the sizes of the published models, have kernels of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from deform_attn_inputs import Shapes
from operator_calls import OperatorCall
from operator_strategies import assert_close, make_variant, needs_native, output_of
from torch import Tensor

pytestmark = needs_native

SHAPES: Shapes = [(9, 12), (5, 6), (3, 3), (1, 2)]
NOT_FINITE = (float("nan"), float("inf"), -float("inf"))
TOLERANCES = {torch.float32: 5e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def published(variant: str, dtype: torch.dtype = torch.float32, **sizes: object) -> OperatorCall:
    """Gives a call with the samples and channels of the published models."""
    sizes = {"shapes": SHAPES, "queries": 29, "heads": 3, "points": 4, **sizes}
    return make_variant(variant, dtype=dtype, channels=32, **sizes)  # type: ignore[arg-type]


def read_tokens(call: OperatorCall) -> Tensor:
    """Tokens of each head that have a share in the output, (B, N, H)."""
    exact = call.in_float64()
    value = exact.leaves[0].requires_grad_()
    (gradient,) = torch.autograd.grad(exact.output(value, *exact.leaves[1:]).square().sum(), value)
    return gradient.abs().sum(-1) > 0


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("variant", ["given", "points", "boxes"])
def test_equals_the_path_in_torch(variant: str, dtype: torch.dtype, padded: bool) -> None:
    call = published(variant, dtype, padded=padded)
    expected = output_of("torch", call.in_float64())
    assert_close([output_of("native", call)], [expected], TOLERANCES[dtype])


@pytest.mark.parametrize("number", NOT_FINITE)
def test_what_lies_beside_the_samples_is_not_read(number: float) -> None:
    call = published("given", padded=True, queries=3)
    expected = output_of("native", call)
    unread = ~read_tokens(call)
    assert unread.any()
    call.leaves[0][unread] = number
    assert torch.equal(output_of("native", call), expected)


@pytest.mark.parametrize("number", NOT_FINITE)
def test_a_sample_outside_adds_nothing_whatever_its_weight(number: float) -> None:
    call = published("given")
    _, locations, weights = call.leaves
    outside = torch.rand(weights.shape) < 0.3
    locations[outside] = torch.tensor([number, 0.5])
    weights[outside] = 0
    expected = output_of("native", call)
    weights[outside] = number
    assert torch.equal(output_of("native", call), expected)
    assert expected.isfinite().all()


@pytest.mark.parametrize("number", NOT_FINITE)
def test_what_is_read_counts(number: float) -> None:
    call = published("given", batch=1, queries=1, heads=1)
    call.leaves[1].clamp_(0.3, 0.7)
    token = read_tokens(call)[0, :, 0].nonzero()[0]
    call.leaves[0][0, token, 0, 5] = number
    output = output_of("native", call)[0, 0]
    assert not output[5].isfinite()
    assert output[torch.arange(32) != 5].isfinite().all()


def test_tokens_that_share_their_memory() -> None:
    call = published("given")
    call.leaves[0] = call.leaves[0][:, :1].expand_as(call.leaves[0])
    expected = output_of("torch", call.in_float64())
    assert_close([output_of("native", call)], [expected], 5e-6)


@pytest.mark.parametrize("distance", [2**29 - 1, 2**29])
def test_tokens_that_lie_gigabytes_apart(distance: int) -> None:
    # The second does not fit 32 bits in bytes. Most of the memory is never touched.
    memory = torch.empty(distance + 32)
    value = memory.as_strided((1, 2, 1, 32), (distance + 32, distance, 32, 1))
    value.copy_(torch.randn(1, 2, 1, 32))
    call = published("given", batch=1, heads=1, shapes=[(1, 2)], points=16)
    call.leaves[0] = value
    near = replace(call, leaves=[value.contiguous(), *call.leaves[1:]])
    assert_close([output_of("native", call)], [output_of("torch", near.in_float64())], 5e-6)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_as_many_queries_as_tokens_give_what_few_give(dtype: torch.dtype) -> None:
    # Values beyond the second cache: with many queries the corners that exist are read in another
    # order, fetched ahead of time.
    shapes = [(90, 120), (45, 60), (23, 30), (12, 15)]
    many = published("given", dtype, shapes=shapes, batch=1, queries=7300, padded=False)
    few = replace(many, leaves=[many.leaves[0], *(x[:, :500] for x in many.leaves[1:])])
    got = output_of("native", many)[:, :500]
    assert_close([got], [output_of("native", few).double()], 2 * TOLERANCES[dtype])
