"""The CUDA operators give what the torch path gives in float64, for every type and shape."""

from __future__ import annotations

import pytest
import torch
from deform_attn_inputs import Shapes
from gpu import DEVICE, needs_gpu
from operator_calls import OPERATORS, OperatorCall, make_call
from torch import Tensor

from sparse_detr.decoder_attention_map import decoder_attention_map, decoder_attention_map_torch
from sparse_detr.layers.backend import use_backend
from sparse_detr.layers.ms_deform_attn import deform_attn_sampling, ms_deform_attn
from sparse_detr.layers.ms_deform_attn_reference import sampling_torch
from sparse_detr.structures import Sampling

pytestmark = [pytest.mark.gpu, needs_gpu]

SHAPES: Shapes = [(13, 17), (6, 8), (3, 4), (1, 2)]
# Largest error of a result, over the largest number of the expected one.
TOLERANCES = {
    torch.float64: 1e-11,
    torch.float32: 3e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}


def on_device(call: OperatorCall) -> OperatorCall:
    return call.changed(lambda tensor: tensor.to(DEVICE))


def expected_results(call: OperatorCall) -> list[Tensor]:
    """Output and gradients of the torch path, in float64, of the numbers that the call has."""
    with use_backend("torch"):
        return call.in_float64().results()


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    assert len(got) == len(expected)
    for place, (one, two) in enumerate(zip(got, expected, strict=True)):
        assert one.shape == two.shape
        assert one.isfinite().all()
        if two.numel() > 0:
            limit = tolerance * max(1.0, two.abs().max().item())
            error = (one.cpu().double() - two).abs().max().item()
            assert error <= limit, f"result {place}: error {error}, allowed {limit}"


def check(call: OperatorCall) -> None:
    """Compares a call with the torch path."""
    with use_backend("native"):
        got = on_device(call).results()
    for result, leaf in zip(got[1:], call.leaves, strict=True):
        assert result.dtype == leaf.dtype
    assert got[0].dtype == call.grad.dtype
    assert_close(got, expected_results(call), TOLERANCES[call.grad.dtype])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_several_images_with_a_prime_number_of_queries(
    operator: str, dtype: torch.dtype, padded: bool
) -> None:
    check(make_call(operator, SHAPES, dtype=dtype, padded=padded))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("channels", [1, 7, 8, 30, 32, 64, 71, 256])
@pytest.mark.parametrize("operator", ["given", "points"])
def test_every_head_dim(operator: str, channels: int, dtype: torch.dtype) -> None:
    check(make_call(operator, SHAPES, dtype=dtype, channels=channels, queries=23))


@pytest.mark.parametrize("points", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("levels", [1, 2, 3, 5, 20, 37])
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_number_of_levels_and_points(operator: str, levels: int, points: int) -> None:
    shapes: Shapes = ([(5, 7), (3, 2), (1, 1), (2, 6)] * 10)[:levels]
    check(make_call(operator, shapes, queries=11, points=points, padded=True))


@pytest.mark.parametrize(
    ("shapes", "batch", "queries"),
    [
        (SHAPES, 0, 5),
        (SHAPES, 2, 0),
        (SHAPES, 0, 0),
        ([(0, 0)], 2, 5),
        ([(0, 3), (2, 2)], 2, 5),
    ],
)
@pytest.mark.parametrize("operator", OPERATORS)
def test_empty_input(operator: str, shapes: Shapes, batch: int, queries: int) -> None:
    call = make_call(operator, shapes, batch=batch, queries=queries)
    got = on_device(call).results()
    assert got[0].shape == call.grad.shape
    for gradient, leaf in zip(got[1:], call.leaves, strict=True):
        assert gradient.shape == leaf.shape
        assert gradient.isfinite().all()
    if shapes == [(0, 0)] and operator != "sample_then_project":
        assert (got[0] == 0).all()


def strided(tensor: Tensor) -> Tensor:
    """The same numbers, every other element of a larger tensor, dimensions in reverse order."""
    reverse = tuple(reversed(range(tensor.dim())))
    spaced = tensor.permute(reverse).contiguous().repeat_interleave(2, dim=0)[::2]
    return spaced.permute(reverse)


def head_first(tensor: Tensor) -> Tensor:
    """The same numbers, the first two dimensions swapped in memory."""
    if tensor.dim() < 3:
        return tensor
    return tensor.transpose(0, 1).contiguous().transpose(0, 1)


def misaligned(tensor: Tensor) -> Tensor:
    """The same numbers, one element into a larger storage."""
    return torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view(tensor.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", [strided, head_first, misaligned])
@pytest.mark.parametrize("operator", OPERATORS)
def test_strided_and_misaligned_inputs(operator: str, change: object, dtype: torch.dtype) -> None:
    call = make_call(operator, SHAPES, dtype=dtype, padded=True)
    assert callable(change)
    got = on_device(call).changed(change).results()
    assert_close(got, expected_results(call), TOLERANCES[dtype])


@pytest.mark.parametrize("operator", OPERATORS)
def test_expanded_inputs(operator: str) -> None:
    one = make_call(operator, SHAPES, batch=1)

    def expand(tensor: Tensor) -> Tensor:
        return tensor.expand(3, *tensor.shape[1:]) if tensor.shape[:1] == (1,) else tensor

    call = one.changed(expand)
    assert_close(on_device(one).changed(expand).results(), expected_results(call), 1e-11)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30, -3e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_location_that_is_not_finite_or_far_away_counts_as_outside(
    bad: float, dtype: torch.dtype
) -> None:
    call = make_call("given", SHAPES, dtype=dtype)
    call.leaves[1][0, 3, 1, 2, 1] = torch.tensor([bad, 0.5])
    call.leaves[1][2, 100, 2, 0, 3] = torch.tensor([0.5, bad])
    call.leaves[2][2, 100, 2, 0, 3] = float("nan")
    check(call)


@pytest.mark.parametrize("operator", ["points", "boxes"])
def test_locations_and_weights_from_raw_outputs(operator: str) -> None:
    call = on_device(make_call(operator, SHAPES, dtype=torch.float32))
    got = deform_attn_sampling(*call.leaves[1:], SHAPES)
    expected = sampling_torch(*(leaf.double() for leaf in call.leaves[1:]), SHAPES)
    assert_close(list(got), [tensor.cpu() for tensor in expected], 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("half_cell_shift", [True, False])
def test_the_decoder_attention_map(half_cell_shift: bool, dtype: torch.dtype) -> None:
    layers = [make_call("given", SHAPES, dtype=dtype, seed=seed).leaves[1:] for seed in range(6)]
    sampling = [Sampling(*(tensor.to(DEVICE) for tensor in layer)) for layer in layers]
    locations = [layer[0].double() for layer in layers]
    weights = [layer[1].double() for layer in layers]
    expected = decoder_attention_map_torch(locations, weights, SHAPES, half_cell_shift)
    got = decoder_attention_map(sampling, SHAPES, half_cell_shift)
    assert got.dtype == dtype
    assert_close([got], [expected], TOLERANCES[dtype])


def test_a_value_of_more_than_two_to_the_31_elements() -> None:
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs 16 GiB of free GPU memory")
    shapes: Shapes = [(2100, 2100)]
    value = torch.zeros(4, 2100 * 2100, 4, 32, dtype=torch.bfloat16, device=DEVICE)
    value[-1, -1] = 1
    locations = torch.full((4, 1, 4, 1, 1, 2), 1 - 0.5 / 2100, device=DEVICE)
    weights = torch.ones(4, 1, 4, 1, 1, device=DEVICE)
    output = ms_deform_attn(value, shapes, locations, weights)
    assert (output[:3] == 0).all()
    torch.testing.assert_close(output[3], torch.ones_like(output[3]), rtol=0, atol=1e-2)
