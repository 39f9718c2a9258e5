"""Calls of the operators for property tests, and how their results are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from deform_attn_inputs import Shapes
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from operator_calls import OperatorCall, make_call
from torch import Tensor

from sparse_detr.layers.backend import extension_status, use_backend

# The operators with the kinds of reference points they take.
VARIANTS = ("given", "points", "boxes", "projected points", "projected boxes")

needs_native = pytest.mark.skipif(
    not extension_status.loaded,
    reason=f"the compiled operators are not there: {extension_status.problem}",
)
BACKENDS = [pytest.param("native", marks=needs_native), "torch"]


def limited(examples: int) -> settings:
    """The same examples in every run, few enough for a suite that is run often."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def levels(largest: int = 6, most: int = 4) -> st.SearchStrategy[Shapes]:
    """Level sizes, those without any cell and those of one cell among them."""
    size = st.integers(0, largest)
    return st.lists(st.tuples(size, size), min_size=1, max_size=most)


def make_variant(
    variant: str,
    shapes: Shapes,
    *,
    width: int = 5,
    batch: int = 2,
    padded: bool = False,
    **sizes: object,
) -> OperatorCall:
    """Gives a random call.

    Args:
        variant: One of `VARIANTS`.
        shapes: Level sizes.
        width: Channels of the source, where one is projected.
        batch: Number of images.
        padded: Whether every second image fills a part of its maps.
        sizes: Further arguments of `make_call`.
    """
    projected = variant.startswith("projected")
    operator = variant.removeprefix("projected ")
    some = padded and batch > 0
    call = make_call(operator, shapes, batch=batch, padded=some, **sizes)  # type: ignore[arg-type]
    if padded and batch == 0:
        call.valid_sizes = torch.zeros(0, len(shapes), 2, dtype=torch.int64)
    return with_projection(call, width) if projected else call


def with_projection(call: OperatorCall, width: int) -> OperatorCall:
    """Gives the call of sample_then_project on the samples of a fused call."""
    value, *samples = call.leaves
    batch, tokens, heads, channels = value.shape
    source = torch.randn(batch, tokens, width, dtype=torch.float64)
    weight = torch.randn(heads * channels, width, dtype=torch.float64) / width**0.5
    bias = torch.randn(heads * channels, dtype=torch.float64)
    values = [tensor.to(value.dtype) for tensor in (source, weight, bias)]
    return replace(call, operator="sample_then_project", leaves=[*values, *samples])


def project_first(call: OperatorCall) -> OperatorCall:
    """Gives the fused call on the projected values, for a call of sample_then_project."""
    source, weight, bias, *samples = call.leaves
    heads = samples[1].shape[2]
    value = torch.nn.functional.linear(source, weight, bias).unflatten(-1, (heads, -1))
    return replace(call, operator="points", leaves=[value, *samples])


def results_of(backend: str, call: OperatorCall) -> list[Tensor]:
    """Output and gradients of a call by one backend."""
    with use_backend(backend):
        return call.results()


def output_of(backend: str, call: OperatorCall) -> Tensor:
    """Output of a call by one backend."""
    with use_backend(backend), torch.no_grad():
        return call.output(*call.leaves)


def assert_close(got: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Compares with the largest number of each expected tensor (1 if that is less) as scale."""
    assert len(got) == len(expected)
    for place, (one, two) in enumerate(zip(got, expected, strict=True)):
        assert one.shape == two.shape
        assert one.isfinite().all(), f"result {place} is not finite"
        if two.numel() > 0:
            error = (one.double() - two.double()).abs().max().item()
            limit = tolerance * max(1.0, two.abs().max().item())
            assert error <= limit, f"result {place}: error {error}, allowed {limit}"


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Runs a block with a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
