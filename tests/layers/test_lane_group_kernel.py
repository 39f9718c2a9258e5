"""The body of the CUDA kernels, run on the host with threads as lanes of a warp."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sparse_detr.layers.ms_deform_attn_reference import ms_deform_attn_torch

SOURCE = Path(__file__).with_name("lane_group_host.cpp")


class Call(ctypes.Structure):
    """Mirror of `Call` in lane_group_host.cpp."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("batch", "tokens", "heads", "channels", "queries")]
        + [(name, ctypes.c_int32) for name in ("levels", "points")]
        + [
            (name, ctypes.c_void_p)
            for name in (
                "shapes",
                "value",
                "locations",
                "attention",
                "grad_output",
                "output",
                "grad_value",
                "grad_locations",
                "grad_attention",
            )
        ]
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed: the kernel body cannot be compiled for the host")
    target = tmp_path_factory.mktemp("lane_group") / "lane_group_host.so"
    command = [compiler, "-std=c++20", "-O1", "-Wall", "-Werror"]
    command += ["-pthread", "-shared", "-fPIC", str(SOURCE), "-o", str(target)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return ctypes.CDLL(str(target))


def run_lane_groups(
    library: ctypes.CDLL,
    shapes: list[tuple[int, int]],
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    lanes: int,
    vector: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    value, locations, attention, grad_output = inputs
    batch, tokens, heads, channels = value.shape
    _, queries, _, levels, points, _ = locations.shape
    # NaN shows what was never written; the gradient of the values starts at zero, as the operator
    # hands it over.
    output = torch.full_like(grad_output, float("nan"))
    grad_value = torch.zeros_like(value)
    grad_locations = torch.full_like(locations, float("nan"))
    grad_attention = torch.full_like(attention, float("nan"))
    flat_shapes = torch.tensor(shapes)
    buffers = (flat_shapes, *inputs, output, grad_value, grad_locations, grad_attention)
    pointers = [buffer.data_ptr() for buffer in buffers]
    call = Call(batch, tokens, heads, channels, queries, levels, points, *pointers)
    library.run_lane_groups(ctypes.byref(call), lanes, vector)
    return output, grad_value, grad_locations, grad_attention


@pytest.mark.parametrize(
    ("lanes", "vector", "channels"),
    [(1, 1, 3), (1, 2, 4), (2, 2, 4), (4, 1, 7), (4, 2, 6), (4, 2, 20), (8, 1, 3), (2, 1, 9)],
)
def test_gives_what_the_torch_path_gives_for_any_split_into_lanes(
    library: ctypes.CDLL, lanes: int, vector: int, channels: int
) -> None:
    shapes = [(3, 5), (1, 1), (2, 1)]
    tokens, batch, queries, heads, points = 18, 2, 3, 2, 2
    value = torch.randn(batch, tokens, heads, channels, dtype=torch.float64)
    locations = (
        torch.rand(batch, queries, heads, len(shapes), points, 2, dtype=torch.float64) * 3 - 1
    )
    locations[0, 0, 0, 0, 0] = torch.tensor([float("nan"), 0.5])
    locations[1, 1, 0, 1, 1] = torch.tensor([0.5, float("inf")])
    locations[0, 2, 1, 2, 0] = torch.tensor([-1e30, 1e30])
    attention = torch.randn(batch, queries, heads, len(shapes), points, dtype=torch.float64)
    grad_output = torch.randn(batch, queries, heads * channels, dtype=torch.float64)

    got = run_lane_groups(
        library, shapes, (value, locations, attention, grad_output), lanes, vector
    )

    leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, attention)]
    expected = ms_deform_attn_torch(leaves[0], shapes, leaves[1], leaves[2])
    gradients = torch.autograd.grad(expected, leaves, grad_output)
    for result, reference in zip(got, (expected, *gradients), strict=True):
        torch.testing.assert_close(result, reference.detach(), rtol=0, atol=1e-12)
