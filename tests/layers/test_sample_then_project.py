"""Sampling before the projection gives what projecting first gives, with every gradient."""

from __future__ import annotations

import pytest
import torch
from deform_attn_inputs import Shapes
from hypothesis import given
from hypothesis import strategies as st
from operator_strategies import (
    BACKENDS,
    assert_close,
    levels,
    limited,
    make_variant,
    needs_native,
    project_first,
    results_of,
)

from sparse_detr.layers.backend import use_backend
from sparse_detr.layers.sample_then_project import (
    QUERIES_PER_TOKEN,
    sampling_first_is_faster,
)

VARIANTS = ("projected points", "projected boxes")
FOUR_LEVELS: Shapes = [(9, 12), (5, 6), (3, 3), (2, 2)]


def compare(backend: str, tolerance: float, variant: str, shapes: Shapes, **sizes: object) -> None:
    """Holds the operator against the projection of all tokens and the fused sampling."""
    call = make_variant(variant, shapes, **sizes)  # type: ignore[arg-type]
    leaves = [leaf.detach().requires_grad_() for leaf in call.leaves]
    call.leaves = leaves
    first = project_first(call)
    with use_backend(backend):
        output = first.output(*first.leaves)
    expected = [output.detach(), *torch.autograd.grad(output, leaves, call.grad)]
    assert_close(results_of(backend, call), expected, tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
@limited(25)
@given(
    shapes=levels(),
    width=st.integers(1, 40),
    batch=st.integers(1, 3),
    queries=st.integers(1, 7),
    heads=st.integers(1, 3),
    channels=st.integers(1, 20),
    points=st.integers(1, 4),
    padded=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_projecting_first(backend: str, variant: str, shapes: Shapes, **sizes: int) -> None:
    # A level without cells is in the property tests: here the whole graph is compared.
    shapes = [(max(height, 1), max(width, 1)) for height, width in shapes]
    compare(backend, 1e-11, variant, shapes, **sizes)


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("queries", [31, 32, 33, 255, 256, 257, 521])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_queries_around_the_sizes_of_its_chunks(
    variant: str, queries: int, dtype: torch.dtype
) -> None:
    tolerance = 1e-11 if dtype == torch.float64 else 2e-4
    sizes = {"queries": queries, "heads": 2, "channels": 8, "width": 19}
    compare("native", tolerance, variant, FOUR_LEVELS, padded=True, dtype=dtype, **sizes)


@needs_native
@pytest.mark.parametrize("channels", [1, 7, 8, 30, 32, 64, 256])
@pytest.mark.parametrize("width", [1, 7, 32, 129, 256])
def test_any_width_of_source_and_heads(channels: int, width: int) -> None:
    sizes = {"queries": 9, "heads": 2, "channels": channels, "width": width}
    compare("native", 1e-11, "projected points", [(4, 5), (2, 3)], **sizes)
    compare("native", 3e-4, "projected boxes", FOUR_LEVELS, dtype=torch.float32, **sizes)


def test_sampling_first_is_chosen_by_the_ratio_on_a_cpu_and_never_elsewhere() -> None:
    tokens = 10_000
    for with_gradient in (False, True):
        assert not sampling_first_is_faster("cuda", 1, tokens, with_gradient)
        assert not sampling_first_is_faster("cpu", tokens, tokens, with_gradient)
        with use_backend("torch"):
            assert not sampling_first_is_faster("cpu", 1, tokens, with_gradient)


@needs_native
def test_few_queries_are_sampled_first_where_the_operators_are_there() -> None:
    tokens = 10_000
    few = int(QUERIES_PER_TOKEN * tokens) - 1
    with use_backend("native"):
        assert sampling_first_is_faster("cpu", few, tokens, False)
        assert not sampling_first_is_faster("cpu", few + 2, tokens, False)
