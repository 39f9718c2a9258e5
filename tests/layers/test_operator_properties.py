"""Every operator gives its definition, forward and backward, for any input there can be."""

from __future__ import annotations

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
    results_of,
)
from scalar_reference import expected_results
from torch import Tensor

NOT_FINITE_OR_HUGE = (float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3e38)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
@limited(60)
@given(
    shapes=levels(),
    batch=st.integers(0, 3),
    queries=st.integers(0, 5),
    heads=st.integers(1, 3),
    channels=st.sampled_from([1, 2, 4, 8, 9, 17, 40]),
    points=st.integers(1, 4),
    padded=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_gives_the_definition(
    backend: str, variant: str, shapes: Shapes, batch: int, padded: bool, seed: int, **sizes: int
) -> None:
    call = make_variant(variant, shapes, batch=batch, padded=padded, seed=seed, **sizes)
    assert_close(results_of(backend, call), expected_results(call), 1e-11)


@needs_native
@pytest.mark.parametrize("variant", VARIANTS)
@limited(8)
@given(
    channels=st.sampled_from([8, 32, 33]),
    points=st.sampled_from([1, 2, 4, 8, 16]),
    padded=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_gives_the_definition_in_float32_for_the_published_number_of_samples(
    variant: str, channels: int, points: int, padded: bool, seed: int
) -> None:
    # Sixteen samples and 32 channels have kernels of their own.
    shapes: Shapes = ([(5, 6), (3, 4), (2, 2), (1, 1)] * 4)[: 16 // points]
    call = make_variant(
        variant,
        shapes,
        dtype=torch.float32,
        batch=2,
        queries=3,
        heads=2,
        channels=channels,
        points=points,
        padded=padded,
        seed=seed,
    )
    # The rounding of a coordinate moves the fractions of a cell.
    assert_close(results_of("native", call), expected_results(call), 2e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
@limited(10)
@given(
    queries=st.sampled_from([1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]),
    batch=st.integers(2, 4),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_no_image_reads_the_values_of_another(
    backend: str, variant: str, queries: int, batch: int, dtype: torch.dtype, seed: int
) -> None:
    shapes: Shapes = [(3, 4), (2, 1)]
    call = make_variant(
        variant,
        shapes,
        batch=batch,
        queries=queries,
        heads=2,
        channels=4,
        points=2,
        dtype=dtype,
        seed=seed,
    )
    poisoned = call.leaves[0].clone()
    poisoned[1::2] = float("nan")
    got = output_of(backend, replace(call, leaves=[poisoned, *call.leaves[1:]]))
    expected = output_of(backend, call)
    assert torch.equal(got[::2], expected[::2])
    # The gradient of an image's values comes from its own queries alone.
    silent = replace(call, grad=call.grad.index_fill(0, torch.tensor([0]), 0.0))
    grad_value = results_of(backend, silent)[1]
    assert (grad_value[0] == 0).all()
    assert grad_value[1:].abs().sum() > 0


def spoil(call: OperatorCall, bad: float, number: int, seed: int, box_size: bool) -> OperatorCall:
    """Replaces some coordinates: of locations, of offsets and of reference points."""
    generator = torch.Generator().manual_seed(seed)
    first = 3 if call.operator == "sample_then_project" else 1
    last = first + 1 if call.operator == "given" else first + 2
    leaves = list(call.leaves)
    for place in range(first, last):
        leaf = leaves[place].clone()
        flat = leaf.view(-1, leaf.shape[-1])
        if flat.shape[0] == 0:
            continue
        rows = torch.randint(flat.shape[0], (number,), generator=generator)
        boxes = place == first and leaf.shape[-1] == 4
        if boxes and not box_size:
            columns = torch.randint(2, (number,), generator=generator)
        else:
            columns = torch.randint(leaf.shape[-1], (number,), generator=generator)
        flat[rows, columns] = bad
        leaves[place] = leaf
    return replace(call, leaves=leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
@limited(20)
@given(
    bad=st.sampled_from(NOT_FINITE_OR_HUGE),
    number=st.integers(1, 4),
    sixteen=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    padded=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_coordinate_that_is_huge_or_not_finite_leaves_everything_else_finite(
    backend: str,
    variant: str,
    bad: float,
    number: int,
    sixteen: bool,
    dtype: torch.dtype,
    padded: bool,
    seed: int,
) -> None:
    shapes: Shapes = [(3, 4), (2, 3), (1, 1), (2, 2)] if sixteen else [(3, 4), (2, 1)]
    call = make_variant(
        variant,
        shapes,
        batch=2,
        queries=3,
        heads=2,
        channels=8,
        dtype=dtype,
        padded=padded,
        seed=seed,
    )
    # A finite huge size times an offset is a location that float32 and float64 see differently.
    call = spoil(call, bad, number, seed, box_size=not abs(bad) < float("inf"))
    assert_close(
        results_of(backend, call),
        expected_results(call),
        1e-10 if dtype == torch.float64 else 1e-3,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", ["boxes", "projected boxes"])
@pytest.mark.parametrize("size", [0.0, float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_box_without_size_or_without_end_gives_finite_results(
    backend: str, variant: str, size: float, dtype: torch.dtype
) -> None:
    shapes: Shapes = [(3, 4), (2, 2)]
    call = make_variant(variant, shapes, batch=2, queries=3, heads=2, channels=8, dtype=dtype)
    reference = call.leaves[-3]
    reference[0, 1, :, 2:] = size
    reference[1, 2, 0, 3] = size
    # Offset zero times a size without end is no number.
    call.leaves[-2][0, 1, 0] = 0.0
    tolerance = 1e-10 if dtype == torch.float64 else 1e-3
    assert_close(results_of(backend, call), expected_results(call), tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@limited(20)
@given(
    shapes=st.lists(
        st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8])),
        min_size=1,
        max_size=4,
    ),
    padded=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_points_exactly_on_centres_and_borders(
    backend: str, dtype: torch.dtype, shapes: Shapes, padded: bool, seed: int
) -> None:
    call = make_variant(
        "given",
        shapes,
        batch=2,
        queries=6,
        heads=1,
        channels=4,
        dtype=dtype,
        padded=padded,
        seed=seed,
    )
    # Half cells from -1 to the size: centres, edges between cells, borders of the map. Exact in
    # binary, because the sizes are powers of two.
    sizes = torch.tensor([(width, height) for height, width in shapes], dtype=dtype)[:, None]
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(call.leaves[1].shape, generator=generator, dtype=dtype)
    halves = (share * (2 * sizes + 3)).floor() - 1
    call.leaves[1] = halves / 2 / sizes
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert_close(results_of(backend, call), expected_results(call), tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_one_point_on_a_centre_gives_that_token(backend: str, dtype: torch.dtype) -> None:
    shapes: Shapes = [(2, 4), (4, 1), (1, 1)]
    real = torch.float64 if dtype == torch.float64 else torch.float32
    value = torch.randn(1, 13, 2, 8).to(dtype)
    centres: list[Tensor] = []
    for level, (height, width) in enumerate(shapes):
        for row in range(height):
            for column in range(width):
                centre = torch.full((3, 2), 5.0, dtype=real)
                centre[level] = torch.tensor([(column + 0.5) / width, (row + 0.5) / height])
                centres.append(centre)
    locations = torch.stack(centres).view(1, 13, 1, 3, 1, 2).expand(-1, -1, 2, -1, -1, -1)
    with torch.no_grad():
        call = OperatorCall("given", shapes, [], value, None)
        weights = torch.ones(1, 13, 2, 3, 1, dtype=real)
        got = output_of(backend, replace(call, leaves=[value, locations, weights]))
    assert torch.equal(got.view(1, 13, 2, 8), value)


@pytest.mark.parametrize("backend", BACKENDS)
@limited(15)
@given(shapes=levels(largest=4), seed=st.integers(0, 2**31))
def test_a_constant_value_gives_the_sum_of_the_weights_inside(
    backend: str, shapes: Shapes, seed: int
) -> None:
    call = make_variant("given", shapes, batch=2, queries=4, heads=2, channels=3, seed=seed)
    locations = call.leaves[1]
    # At least half a cell from the border, or outside altogether.
    sizes = torch.tensor([(max(w, 1), max(h, 1)) for h, w in shapes], dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(seed)
    inside = torch.rand(locations.shape[:-1], generator=generator) < 0.6
    pixel = torch.rand(locations.shape, generator=generator, dtype=torch.float64) * (sizes - 1)
    call.leaves[1] = torch.where(inside[..., None], (pixel + 0.5) / sizes, -7.0)
    call.leaves[0] = torch.full_like(call.leaves[0], 2.5)
    has_cells = torch.tensor([h * w > 0 for h, w in shapes])[:, None]
    sums = (call.leaves[2] * inside * has_cells).sum((-2, -1))
    expected = 2.5 * sums.repeat_interleave(3, dim=-1)
    assert_close([output_of(backend, call)], [expected], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_is_linear_in_the_value(backend: str, variant: str) -> None:
    call = make_variant(variant, [(4, 3), (2, 2)], batch=2, queries=7, heads=2, channels=9)
    # The bias of a projection makes it affine.
    if call.operator == "sample_then_project":
        call.leaves[2] = torch.zeros_like(call.leaves[2])
    first, second = call.leaves[0], torch.randn_like(call.leaves[0])

    def output(value: Tensor) -> Tensor:
        return output_of(backend, replace(call, leaves=[value, *call.leaves[1:]]))

    expected = 3 * output(first) - 0.5 * output(second)
    assert_close([output(3 * first - 0.5 * second)], [expected], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_without_a_sample_inside_gives_zero_even_with_a_bias(backend: str) -> None:
    call = make_variant("projected points", [(4, 3)], batch=1, queries=5, heads=2, channels=4)
    call.leaves[-2][0, 2] = 1e4
    output = output_of(backend, call)
    assert (output[0, 2] == 0).all()
    assert (output[0, [0, 1, 3, 4]] != 0).any()
