"""The bodies of the CUDA kernels, run on the host: every index that they work out is tested."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from deform_attn_inputs import Shapes, away_from_kinks, make_inputs
from lane_group_call import Case, Results, run_in_order, run_lane_group, run_map, run_sampling
from torch import Tensor
from torch.utils.cpp_extension import include_paths

from sparse_detr.decoder_attention_map import decoder_attention_map_torch
from sparse_detr.layers.ms_deform_attn_reference import (
    ms_deform_attn_torch,
    sampling_torch,
    without_padding,
)

SOURCE = Path(__file__).with_name("lane_group_host.cpp")
SHAPES: Shapes = [(3, 5), (1, 1), (2, 1)]
SPLITS = [(1, 1, 3), (1, 2, 4), (2, 2, 4), (4, 1, 7), (4, 2, 6), (4, 2, 20), (8, 1, 3), (32, 2, 64)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed: the kernel bodies cannot be compiled for the host")
    target = tmp_path_factory.mktemp("lane_group") / "lane_group_host.so"
    command = [compiler, "-std=c++20", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", str(SOURCE)]
    for folder in include_paths():
        command += ["-isystem", folder]
    result = subprocess.run(
        [*command, "-o", str(target)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(target))


def given_case(channels: int, *, shapes: Shapes = SHAPES, heads: int = 2, seed: int = 0) -> Case:
    """Locations and weights for 2 images and 3 queries; some locations are not finite."""
    torch.manual_seed(seed)
    value, locations, weights = make_inputs(
        shapes, queries=3, heads=heads, channels=channels, points=2, low=-0.7, high=1.7
    )
    locations = away_from_kinks(locations, shapes)
    locations[0, 0, 0, 0, 0] = torch.tensor([float("nan"), 0.5])
    locations[1, 1, 0, 0, 1] = torch.tensor([0.5, float("inf")])
    locations[0, 2, 1, 0, 0] = torch.tensor([-1e30, 1e30])
    weights[0, 0, 0, 0, 0] = float("nan")
    grad = torch.randn(2, 3, heads * channels, dtype=torch.float64)
    return Case(shapes, value, locations, weights, grad)


def raw_case(channels: int, reference_size: int, *, shapes: Shapes = SHAPES, seed: int = 0) -> Case:
    """Reference points, offsets and logits for 2 images and 3 queries."""
    case = given_case(channels, shapes=shapes, seed=seed)
    reference = torch.rand(2, 3, len(shapes), reference_size, dtype=torch.float64)
    offsets = torch.randn(case.positions.shape, dtype=torch.float64) * 2
    logits = torch.randn(case.scores.shape, dtype=torch.float64) * 3
    return Case(shapes, case.value, offsets, logits, case.grad_output, reference=reference)


def expected_results(case: Case) -> Results:
    """What torch makes of a case; a value with one head serves all heads."""
    leaves = [case.value, case.positions, case.scores]
    if case.reference is not None:
        leaves.append(case.reference)
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    value = without_padding(leaves[0], case.shapes, case.valid_sizes)
    heads = case.scores.shape[2]
    ones = without_padding(torch.ones_like(leaves[0][..., :1]), case.shapes, case.valid_sizes)
    if case.reference is None:
        locations, weights = leaves[1], leaves[2]
    else:
        locations, weights = sampling_torch(leaves[3], leaves[1], leaves[2], case.shapes)
    output = ms_deform_attn_torch(value.expand(-1, -1, heads, -1), case.shapes, locations, weights)
    sums = ms_deform_attn_torch(ones.expand(-1, -1, heads, -1), case.shapes, locations, weights)
    total = (output * case.grad_output).sum()
    if case.grad_weight_sum is not None:
        total = total + (sums * case.grad_weight_sum).sum()
    gradients = torch.autograd.grad(total, leaves)
    reference = gradients[3] if case.reference is not None else None
    return Results(
        output.detach(), sums.detach(), gradients[0], gradients[1], gradients[2], reference
    )


def assert_same(got: Results, expected: Results, tolerance: float = 1e-12) -> None:
    for name in ("output", "weight_sum", "grad_value", "grad_positions", "grad_scores"):
        torch.testing.assert_close(
            getattr(got, name), getattr(expected, name), rtol=0, atol=tolerance, msg=name
        )
    if expected.grad_reference is not None:
        assert got.grad_reference is not None
        torch.testing.assert_close(
            got.grad_reference, expected.grad_reference, rtol=0, atol=tolerance
        )


@pytest.mark.parametrize(("lanes", "vector", "channels"), SPLITS)
def test_given_samples_give_what_torch_gives_for_any_split_into_lanes(
    library: ctypes.CDLL, lanes: int, vector: int, channels: int
) -> None:
    case = given_case(channels)
    assert_same(run_lane_group(library, case, lanes, vector), expected_results(case))


@pytest.mark.parametrize("reference_size", [2, 4])
@pytest.mark.parametrize(("lanes", "vector", "channels"), SPLITS)
def test_raw_samples_give_what_torch_gives_for_any_split_into_lanes(
    library: ctypes.CDLL, lanes: int, vector: int, channels: int, reference_size: int
) -> None:
    case = raw_case(channels, reference_size)
    assert_same(run_lane_group(library, case, lanes, vector), expected_results(case))


@pytest.mark.parametrize("raw", [False, True])
def test_cells_beyond_the_valid_sizes_count_as_zero(library: ctypes.CDLL, raw: bool) -> None:
    case = raw_case(6, 2) if raw else given_case(6)
    case.valid_sizes = torch.tensor([[[2, 3], [1, 1], [0, 0]], [[3, 5], [0, 1], [2, 0]]])
    expected = expected_results(case)
    assert_same(run_lane_group(library, case, 4, 2), expected)
    assert not torch.equal(expected.grad_value, expected_results(given_case(6)).grad_value)


def test_sizes_that_no_level_has_read_nothing_outside_the_level(library: ctypes.CDLL) -> None:
    case = given_case(4)
    unpadded = run_lane_group(library, case, 2, 2)
    case.valid_sizes = torch.tensor([[[2**40, 99], [7, 7], [2**62, 3]]] * 2)
    assert_same(run_lane_group(library, case, 2, 2), unpadded, 0)
    case.valid_sizes = torch.full((2, 3, 2), -(2**40))
    assert (run_lane_group(library, case, 2, 2).output == 0).all()


@pytest.mark.parametrize("raw", [False, True])
def test_heads_may_share_one_value_and_want_the_sum_of_their_weights(
    library: ctypes.CDLL, raw: bool
) -> None:
    case = raw_case(6, 4) if raw else given_case(6)
    case.value = case.value[:, :, :1].contiguous()
    case.valid_sizes = torch.tensor([[[2, 3], [1, 1], [1, 1]], [[3, 4], [1, 1], [2, 1]]])
    case.grad_weight_sum = torch.randn(2, 3, 2, dtype=torch.float64)
    assert_same(run_lane_group(library, case, 4, 1), expected_results(case))


@pytest.mark.parametrize("raw", [False, True])
def test_more_levels_than_fit_the_parameters_of_a_kernel(library: ctypes.CDLL, raw: bool) -> None:
    shapes: Shapes = [(2, 1), (1, 3), (2, 2)] * 7
    case = raw_case(4, 2, shapes=shapes) if raw else given_case(4, shapes=shapes)
    assert_same(run_lane_group(library, case, 4, 1), expected_results(case))


@pytest.mark.parametrize("layout", ["head first", "rows apart", "expanded"])
def test_the_value_may_have_any_strides(library: ctypes.CDLL, layout: str) -> None:
    case = given_case(4)
    contiguous = case.value
    if layout == "head first":
        case.value = contiguous.transpose(1, 2).contiguous().transpose(1, 2)
    elif layout == "rows apart":
        case.value = torch.cat([contiguous] * 3, dim=-1)[..., 4:8]
    else:
        case.value = contiguous[:1].expand(2, -1, -1, -1)
    assert not case.value.is_contiguous()
    assert_same(run_lane_group(library, case, 2, 2), expected_results(case))


@pytest.mark.parametrize(
    ("dtype", "vector", "tolerance"),
    [(torch.float32, 4, 2e-5), (torch.bfloat16, 8, 2e-2), (torch.bfloat16, 1, 2e-2)],
)
@pytest.mark.parametrize("raw", [False, True])
def test_smaller_types_are_computed_in_float32(
    library: ctypes.CDLL, dtype: torch.dtype, vector: int, tolerance: float, raw: bool
) -> None:
    exact = raw_case(16, 4) if raw else given_case(16)
    exact.value = exact.value.to(dtype).double()
    exact.grad_output = exact.grad_output.to(dtype).double()
    got = run_lane_group(library, exact.as_type(dtype), 2, vector)
    expected = expected_results(exact)
    assert got.output.dtype == dtype
    assert got.grad_value.dtype == torch.float32
    torch.testing.assert_close(got.output.double(), expected.output, rtol=tolerance, atol=tolerance)
    for name in ("grad_value", "grad_positions", "grad_scores"):
        torch.testing.assert_close(
            getattr(got, name).double(), getattr(expected, name), rtol=1e-4, atol=1e-4, msg=name
        )


def test_an_image_may_lie_more_than_two_to_the_31_elements_from_the_last(
    library: ctypes.CDLL,
) -> None:
    case = given_case(8).as_type(torch.bfloat16)
    tokens, heads, channels = case.value.shape[1:]
    # Only the pages of the two images are ever touched.
    try:
        memory = torch.empty(2**31 + tokens * heads * channels, dtype=torch.bfloat16)
    except RuntimeError:
        pytest.skip("4 GiB of address space are not to be had")
    far = memory.as_strided(case.value.shape, (2**31, heads * channels, channels, 1))
    far.copy_(case.value)
    expected = run_lane_group(library, case, 1, 8)
    case.value = far
    assert_same(run_lane_group(library, case, 1, 8), expected, 0)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("value_heads", [1, 2])
@pytest.mark.parametrize(("lanes", "vector", "channels"), [(1, 2, 4), (4, 1, 7), (4, 2, 20)])
def test_adding_up_in_order_gives_the_same_gradient(
    library: ctypes.CDLL, lanes: int, vector: int, channels: int, value_heads: int, raw: bool
) -> None:
    case = raw_case(channels, 2) if raw else given_case(channels)
    case.value = case.value[:, :, :value_heads].contiguous()
    case.valid_sizes = torch.tensor([[[2, 3], [1, 1], [1, 1]], [[3, 4], [1, 1], [2, 1]]])
    got = run_in_order(library, case, lanes, vector)
    torch.testing.assert_close(got, expected_results(case).grad_value, rtol=0, atol=1e-12)
    if not raw:  # the sum inside a softmax depends on the number of lanes
        assert torch.equal(got, run_in_order(library, case, 1, 1))


@pytest.mark.parametrize("reference_size", [2, 4])
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_locations_and_weights_are_those_of_torch(
    library: ctypes.CDLL, lanes: int, reference_size: int
) -> None:
    case = raw_case(3, reference_size)
    assert case.reference is not None
    expected = sampling_torch(case.reference, case.positions, case.scores, SHAPES)
    for got, wanted in zip(run_sampling(library, case, lanes), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("half_cell_shift", [True, False])
@pytest.mark.parametrize("lanes", [1, 4])
def test_the_attention_map_is_that_of_torch(
    library: ctypes.CDLL, lanes: int, half_cell_shift: bool
) -> None:
    case = given_case(1)
    weights = case.scores.nan_to_num()
    expected = decoder_attention_map_torch([case.positions], [weights], SHAPES, half_cell_shift)
    got = run_map(library, case, lanes, 0.0 if half_cell_shift else 0.5)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_large_logits_do_not_overflow(library: ctypes.CDLL) -> None:
    case = raw_case(3, 2)
    case.scores = case.scores * 1e4
    got = run_lane_group(library, case, 4, 1)
    assert_same(got, expected_results(case), 1e-10)
    finite: Tensor = got.output.isfinite()
    assert finite.all()
