"""The CUDA operators in use: deterministic runs, CUDA graphs, autocast, streams, second devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from deform_attn_inputs import Shapes
from gpu import DEVICE, needs_gpu
from operator_calls import OPERATORS, OperatorCall, make_call
from torch import Tensor

from sparse_detr.decoder_attention_map import decoder_attention_map
from sparse_detr.layers.ms_deform_attn import deform_attn_sampling, ms_deform_attn
from sparse_detr.structures import Sampling

pytestmark = [pytest.mark.gpu, needs_gpu]

SHAPES: Shapes = [(13, 17), (6, 8), (3, 4)]


def on_device(call: OperatorCall, device: str = DEVICE) -> OperatorCall:
    return call.changed(lambda tensor: tensor.to(device))


def crowded_map_layers(device: str = DEVICE) -> list[Sampling]:
    calls = [make_call("given", SHAPES, dtype=torch.float32, seed=seed) for seed in range(3)]
    return [Sampling(*on_device(call, device).leaves[1:]) for call in calls]


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Deterministic algorithms for one test."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("operator", OPERATORS)
def test_deterministic_algorithms_give_the_same_bits_twice(
    operator: str, dtype: torch.dtype, deterministic: None
) -> None:
    # Many samples on few cells: atomic additions would come in another order each time.
    call = make_call(operator, SHAPES, dtype=dtype, queries=997, channels=32, padded=True)
    on_gpu = on_device(call)
    first = on_gpu.results()
    for _ in range(3):
        for one, two in zip(first, on_gpu.results(), strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_deterministic_gradients_are_the_gradients(operator: str) -> None:
    call = on_device(make_call(operator, SHAPES, dtype=torch.float64, padded=True))
    expected = call.results()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        got = call.results()
    finally:
        torch.use_deterministic_algorithms(False)
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


def test_the_attention_map_gives_the_same_bits_twice(deterministic: None) -> None:
    layers = crowded_map_layers()
    first = decoder_attention_map(layers, SHAPES, True)
    assert all(torch.equal(first, decoder_attention_map(layers, SHAPES, True)) for _ in range(3))
    torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(decoder_attention_map(layers, SHAPES, True), first)


def captured(function: Callable[[], list[Tensor]]) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """Captures a function into a graph after a warm-up; gives the graph and its outputs."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function()
    return graph, outputs


@pytest.mark.parametrize("levels", [3, 20])
@pytest.mark.parametrize("operator", OPERATORS)
def test_forward_and_backward_are_captured_by_a_cuda_graph(operator: str, levels: int) -> None:
    shapes: Shapes = (SHAPES * 7)[:levels]
    call = on_device(make_call(operator, shapes, dtype=torch.float32, queries=31, padded=True))
    graph, outputs = captured(call.results)
    other = make_call(operator, shapes, dtype=torch.float32, queries=31, padded=True, seed=1)
    other = on_device(other)
    for leaf, replacement in zip(call.leaves, other.leaves, strict=True):
        leaf.copy_(replacement)
    call.grad.copy_(other.grad)
    graph.replay()
    for got, expected in zip(outputs, other.results(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_locations_and_the_attention_map_are_captured_by_a_cuda_graph() -> None:
    call = on_device(make_call("points", SHAPES, dtype=torch.float32, queries=31))

    def function() -> list[Tensor]:
        sampling = Sampling(*deform_attn_sampling(*call.leaves[1:], SHAPES))
        return [decoder_attention_map([sampling], SHAPES, False)]

    graph, outputs = captured(function)
    for leaf in call.leaves[1:]:
        leaf.mul_(0.9)
    graph.replay()
    torch.testing.assert_close(outputs[0], function()[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("operator", OPERATORS)
def test_no_call_waits_for_the_device(operator: str) -> None:
    call = on_device(make_call(operator, SHAPES, dtype=torch.float32, padded=True))
    call.results()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call.results()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("operator", OPERATORS)
def test_values_follow_autocast_and_coordinates_stay_float32(
    operator: str, dtype: torch.dtype
) -> None:
    call = on_device(make_call(operator, SHAPES, dtype=torch.float32))
    values = 3 if operator == "sample_then_project" else 1
    lowered = [leaf.to(dtype) for leaf in call.leaves[:values]] + call.leaves[values:]
    expected = call.output(*lowered)
    with torch.autocast(DEVICE, dtype=dtype):
        got = call.output(*call.leaves)
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_current_stream_is_used(operator: str) -> None:
    call = on_device(make_call(operator, SHAPES, dtype=torch.float32))
    expected = call.results()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Long enough that a kernel on another stream would read the values before they are there.
        torch.cuda._sleep(20_000_000)
        copy = call.changed(torch.clone)
        got = copy.results()
    stream.synchronize()
    for one, two in zip(got, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs are visible")
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_device_that_is_not_the_current_one(operator: str) -> None:
    call = make_call(operator, SHAPES, dtype=torch.float32, padded=True)
    expected = on_device(call).results()
    assert torch.cuda.current_device() == 0
    for one, two in zip(on_device(call, "cuda:1").results(), expected, strict=True):
        assert one.device.index == 1
        torch.testing.assert_close(one.cpu(), two.cpu(), rtol=1e-4, atol=1e-4)
    layers = crowded_map_layers("cuda:1")
    assert decoder_attention_map(layers, SHAPES, True).device.index == 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs are visible")
def test_tensors_on_two_devices_are_refused() -> None:
    call = on_device(make_call("given", SHAPES, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"sampling_locations: got device cuda:1"):
        ms_deform_attn(call.leaves[0], SHAPES, call.leaves[1].to("cuda:1"), call.leaves[2])


def test_a_bad_argument_is_refused_and_the_device_lives_on() -> None:
    call = on_device(make_call("given", SHAPES, dtype=torch.float32, queries=5))
    value, locations, weights = call.leaves
    expected = call.output(value, locations, weights)
    with pytest.raises(ValueError, match="attention_weights"):
        ms_deform_attn(value, SHAPES, locations, weights[:, :4])
    with pytest.raises(TypeError, match="sampling_locations"):
        ms_deform_attn(value, SHAPES, locations.half(), weights)
    torch.testing.assert_close(call.output(value, locations, weights), expected)
