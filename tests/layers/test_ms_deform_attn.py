"""Deformable attention: both backends give the definition, for every input there can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from deform_attn_inputs import (
    Shapes,
    away_from_kinks,
    make_inputs,
    output_and_gradients,
)
from operator_calls import OperatorCall
from operator_strategies import BACKENDS, needs_native
from scalar_reference import expected_results
from torch import Tensor

from sparse_detr.layers.backend import use_backend
from sparse_detr.layers.ms_deform_attn import ms_deform_attn

THREE_LEVELS: Shapes = [(5, 7), (3, 2), (1, 1)]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once per backend."""
    with use_backend(request.param):
        yield request.param


def scalar_output(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """The definition, one number at a time."""
    grad = value.new_zeros(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    call = OperatorCall("given", shapes, [value, locations, weights], grad, None)
    return expected_results(call)[0]


def test_gives_the_definition(backend: str) -> None:
    value, locations, weights = make_inputs(THREE_LEVELS)
    expected = scalar_output(value, THREE_LEVELS, locations, weights)
    got = ms_deform_attn(value, THREE_LEVELS, locations, weights)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_gives_the_reference_vectors(backend: str, golden_file: Callable[[str], Path]) -> None:
    vectors = np.load(golden_file("ops.npz"))
    cases = sorted({key.split("/")[1] for key in vectors.files if key.startswith("msda/")})
    assert cases
    names = ("value", "sampling_locations", "attention_weights")
    for case in cases:
        arrays = {
            key.split("/")[2]: torch.from_numpy(vectors[key])
            for key in vectors.files
            if key.startswith(f"msda/{case}/")
        }
        shapes = [(height, width) for height, width in arrays["spatial_shapes"].tolist()]
        value, locations, weights = (arrays[name].double() for name in names)
        got = ms_deform_attn(value, shapes, locations, weights)
        torch.testing.assert_close(got, arrays["out"], rtol=0, atol=1e-10, msg=case)
        if "grad_out" not in arrays:
            continue
        results = output_and_gradients(
            ms_deform_attn, value, shapes, locations, weights, arrays["grad_out"]
        )
        for name, gradient in zip(names, results[1:], strict=True):
            torch.testing.assert_close(
                gradient, arrays[f"grad_{name}"], rtol=0, atol=1e-10, msg=f"{case}: {name}"
            )


def assert_backends_agree(
    value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, tolerance: float
) -> None:
    grad = torch.randn(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    results = {}
    for name in ("native", "torch"):
        with use_backend(name):
            results[name] = output_and_gradients(
                ms_deform_attn, value, shapes, locations, weights, grad.to(value.dtype)
            )
    for native, torch_path in zip(results["native"], results["torch"], strict=True):
        assert native.isfinite().all()
        torch.testing.assert_close(native, torch_path, rtol=tolerance, atol=tolerance)


@needs_native
@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("channels", [1, 7, 8, 30, 32, 64, 71, 256])
def test_backends_agree_on_every_head_dim_and_number_of_levels(channels: int, levels: int) -> None:
    shapes: Shapes = [(6, 5), (4, 7), (3, 2), (1, 4), (1, 1)][:levels]
    inputs = make_inputs(shapes, channels=channels, queries=7, batch=3)
    value, locations, weights = inputs
    locations = away_from_kinks(locations, shapes)
    assert_backends_agree(value, shapes, locations, weights, 1e-11)
    single = [tensor.float() for tensor in (value, locations, weights)]
    assert_backends_agree(single[0], shapes, single[1], single[2], 2e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_location_that_is_not_finite_or_far_away_counts_as_outside(
    backend: str, bad: float, dtype: torch.dtype
) -> None:
    value, locations, weights = make_inputs(THREE_LEVELS, dtype=dtype)
    hit = torch.zeros(weights.shape, dtype=torch.bool)
    hit[0, 1, 0, 0, 1] = hit[1, 2, 1, 1, 0] = hit[1, 4, 1, 2, 2] = True
    locations[hit] = torch.tensor([bad, 0.5], dtype=dtype)
    locations[1, 2, 1, 1, 0] = torch.tensor([0.5, bad], dtype=dtype)
    grad = torch.randn(2, 5, 8, dtype=dtype)
    got = output_and_gradients(ms_deform_attn, value, THREE_LEVELS, locations, weights, grad)
    without = weights.masked_fill(hit, 0.0)
    elsewhere = locations.masked_fill(hit.unsqueeze(-1), 0.5)
    expected = output_and_gradients(ms_deform_attn, value, THREE_LEVELS, elsewhere, without, grad)
    torch.testing.assert_close(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1])
    for gradient, reference in zip(got[2:], expected[2:], strict=True):
        assert (gradient[hit] == 0).all()
        torch.testing.assert_close(gradient[~hit], reference[~hit])


def test_the_weight_of_a_sample_outside_does_not_matter(backend: str) -> None:
    value, locations, weights = make_inputs([(3, 4)], points=1)
    locations.fill_(5.0)
    weights.fill_(float("nan"))
    grad = torch.randn(2, 5, 8, dtype=torch.float64)
    for result in output_and_gradients(ms_deform_attn, value, [(3, 4)], locations, weights, grad):
        assert (result == 0).all()


@pytest.mark.parametrize(
    ("shapes", "batch", "queries"),
    [
        (THREE_LEVELS, 0, 5),
        (THREE_LEVELS, 2, 0),
        (THREE_LEVELS, 0, 0),
        ([(0, 0)], 2, 5),
        ([(0, 3), (2, 2)], 2, 5),
    ],
)
def test_empty_input_gives_empty_or_zero_output_and_gradients(
    backend: str, shapes: Shapes, batch: int, queries: int
) -> None:
    value, locations, weights = make_inputs(shapes, batch=batch, queries=queries)
    grad = torch.randn(batch, queries, 8, dtype=torch.float64)
    output, *gradients = output_and_gradients(
        ms_deform_attn, value, shapes, locations, weights, grad
    )
    expected = scalar_output(value, shapes, locations, weights)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    for gradient, tensor in zip(gradients, (value, locations, weights), strict=True):
        assert gradient.shape == tensor.shape
        assert gradient.isfinite().all()


def test_strided_and_expanded_inputs_give_what_contiguous_ones_give(backend: str) -> None:
    value, locations, weights = make_inputs(THREE_LEVELS, batch=1)
    strided = value.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    assert not strided.is_contiguous()
    expanded = [tensor.expand(3, *tensor.shape[1:]) for tensor in (strided, locations, weights)]
    got = ms_deform_attn(expanded[0], THREE_LEVELS, expanded[1], expanded[2])
    expected = ms_deform_attn(value, THREE_LEVELS, locations, weights).expand(3, -1, -1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)
    # Misaligned: one element into its storage.
    shifted = torch.cat([value.new_zeros(1), value.flatten()])[1:].view_as(value)
    again = ms_deform_attn(shifted, THREE_LEVELS, locations, weights)
    torch.testing.assert_close(again, expected[:1], rtol=0, atol=1e-14)


def test_a_batch_gives_each_image_what_it_has_alone(backend: str) -> None:
    value, locations, weights = make_inputs(THREE_LEVELS, batch=3, queries=17)
    together = ms_deform_attn(value, THREE_LEVELS, locations, weights)
    for image in range(3):
        one = slice(image, image + 1)
        alone = ms_deform_attn(value[one], THREE_LEVELS, locations[one], weights[one])
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_values_are_computed_in_float32_and_returned_as_they_came(
    backend: str, dtype: torch.dtype
) -> None:
    value, locations, weights = make_inputs(THREE_LEVELS, dtype=torch.float32)
    half = value.to(dtype).requires_grad_()
    got = ms_deform_attn(half, THREE_LEVELS, locations, weights)
    expected = ms_deform_attn(half.detach().float(), THREE_LEVELS, locations, weights)
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected.to(dtype), rtol=0, atol=0)
    got.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype


def test_valid_sizes_hide_the_cells_beyond_them(backend: str) -> None:
    # One row of the first level, one column of the second one, nothing of the last one.
    valid_sizes = torch.tensor([[[1, 7], [3, 1], [0, 0]]]).expand(2, -1, -1)
    value, locations, weights = make_inputs(THREE_LEVELS)
    hidden = value.clone()
    hidden[:, 7:35] = hidden[:, 36:41:2] = hidden[:, 41:] = 0.0
    expected = ms_deform_attn(hidden, THREE_LEVELS, locations, weights)
    got = ms_deform_attn(value, THREE_LEVELS, locations, weights, valid_sizes)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)
    assert not torch.equal(got, ms_deform_attn(value, THREE_LEVELS, locations, weights))
