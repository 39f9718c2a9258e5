"""The fused form: softmax, locations and sampling in one pass give what the three steps give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from deform_attn_inputs import Shapes
from hypothesis import given
from hypothesis import strategies as st
from operator_calls import OperatorCall
from operator_strategies import (
    BACKENDS,
    assert_close,
    levels,
    limited,
    make_variant,
    output_of,
    results_of,
)
from scalar_reference import sampling
from torch import Tensor

from sparse_detr.layers.backend import use_backend
from sparse_detr.layers.ms_deform_attn import deform_attn_sampling, ms_deform_attn

SHAPES: Shapes = [(4, 5), (3, 2), (1, 1)]
FOUR_LEVELS: Shapes = [(5, 6), (3, 4), (2, 2), (1, 1)]


def sampling_of(backend: str, call: OperatorCall) -> tuple[Tensor, Tensor]:
    with use_backend(backend):
        return deform_attn_sampling(*call.leaves[1:], call.shapes)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reference", ["points", "boxes"])
@limited(20)
@given(
    shapes=levels(),
    batch=st.integers(0, 2),
    queries=st.integers(0, 5),
    points=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_sampling_gives_locations_and_weights(
    backend: str, reference: str, shapes: Shapes, batch: int, queries: int, points: int, seed: int
) -> None:
    call = make_variant(
        reference, shapes, batch=batch, queries=queries, heads=2, points=points, seed=seed
    )
    locations, weights = sampling_of(backend, call)
    raw = [leaf.numpy() for leaf in call.leaves[1:]]
    with np.errstate(all="ignore"):
        expected = sampling(raw[0], raw[1], raw[2], shapes)
    # On a level without cells a location is no number.
    there = torch.tensor([height * width > 0 for height, width in shapes])
    assert_close(
        [locations[:, :, :, there], weights],
        [torch.from_numpy(expected[0])[:, :, :, there], torch.from_numpy(expected[1])],
        1e-13,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reference", ["points", "boxes"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@limited(15)
@given(
    shapes=levels(),
    queries=st.integers(1, 5),
    channels=st.sampled_from([3, 8, 32]),
    sixteen=st.booleans(),
    padded=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_fused_equals_unfused_with_its_gradients(
    backend: str,
    reference: str,
    dtype: torch.dtype,
    shapes: Shapes,
    queries: int,
    channels: int,
    sixteen: bool,
    padded: bool,
    seed: int,
) -> None:
    shapes = FOUR_LEVELS if sixteen else [(max(h, 1), max(w, 1)) for h, w in shapes]
    call = make_variant(
        reference,
        shapes,
        dtype=dtype,
        batch=2,
        queries=queries,
        heads=2,
        channels=channels,
        padded=padded,
        seed=seed,
    )
    leaves = [leaf.detach().requires_grad_() for leaf in call.leaves]
    value, place, offsets, logits = leaves
    weights = logits.flatten(-2).softmax(-1).view_as(logits)
    size = torch.tensor([(width, height) for height, width in shapes], dtype=dtype)[:, None]
    centre = place[:, :, None, :, None, :2]
    if reference == "boxes":
        locations = centre + offsets / 4 * place[:, :, None, :, None, 2:] * 0.5
    else:
        locations = centre + offsets / size
    with use_backend(backend):
        output = ms_deform_attn(value, shapes, locations, weights, call.valid_sizes)
    grads = torch.autograd.grad(output, leaves, call.grad)
    tolerance = 1e-11 if dtype == torch.float64 else 3e-4
    assert_close(results_of(backend, call), [output, *grads], tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reference", ["points", "boxes"])
def test_the_sampling_is_what_the_fused_form_reads(backend: str, reference: str) -> None:
    call = make_variant(reference, SHAPES, queries=7, heads=2, dtype=torch.float32)
    locations, weights = sampling_of(backend, call)
    given_call = replace(call, operator="given", leaves=[call.leaves[0], locations, weights])
    assert_close([output_of(backend, call)], [output_of(backend, given_call)], 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_sampling_has_no_gradient_and_weights_that_sum_to_one(backend: str) -> None:
    call = make_variant("points", SHAPES, queries=7, heads=2, dtype=torch.float32)
    with use_backend(backend):
        raw = [leaf.requires_grad_() for leaf in call.leaves[1:]]
        locations, weights = deform_attn_sampling(*raw, call.shapes)
    assert not locations.requires_grad
    assert not weights.requires_grad
    assert locations.dtype == weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum((-2, -1)), torch.ones(2, 7, 2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 80.0, -80.0, 1e4, -1e4, 1e30])
def test_logits_of_any_size_give_a_softmax(backend: str, dtype: torch.dtype, shift: float) -> None:
    for shapes in (SHAPES, FOUR_LEVELS):
        call = make_variant("points", shapes, queries=5, heads=2, dtype=dtype)
        logits = call.leaves[3]
        logits[0, 1] += shift
        logits[1, 2, 0, 0, 0] += 200.0
        logits[1, 3, 1, 0, 1] = -float("inf")
        expected = logits.double().flatten(-2).softmax(-1).view_as(logits)
        _, weights = sampling_of(backend, call)
        tolerance = 1e-14 if dtype == torch.float64 else 1e-6
        assert_close([weights], [expected], tolerance)
        exact = replace(call, leaves=[call.leaves[0], *sampling_of("torch", call)])
        exact = replace(exact, operator="given")
        limit = 1e-12 if dtype == torch.float64 else 1e-5
        assert_close([output_of(backend, call)], [output_of("torch", exact)], limit)
