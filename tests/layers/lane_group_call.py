"""Calls the kernel bodies that lane_group_host.cpp compiles for the host."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from deform_attn_inputs import Shapes
from torch import Tensor

_ENTRY_POINTS = {
    torch.float64: "run_double",
    torch.float32: "run_float",
    torch.bfloat16: "run_bfloat16",
}


class Call(ctypes.Structure):
    """Mirror of `Call` in lane_group_host.cpp."""

    _fields_ = (
        [
            (name, ctypes.c_int64)
            for name in (
                *("batch", "tokens", "queries"),
                *("image_stride", "token_stride", "head_stride"),
            )
        ]
        + [
            (name, ctypes.c_int32)
            for name in (
                *("heads", "value_heads", "channels", "levels", "points"),
                *("reference_size", "lanes", "vector"),
            )
        ]
        + [
            (name, ctypes.c_void_p)
            for name in (
                *("shapes", "valid_sizes", "value", "grad_output", "grad_weight_sum"),
                *("reference", "positions", "scores"),
                *("output", "weight_sum", "grad_value"),
                *("grad_reference", "grad_positions", "grad_scores"),
            )
        ]
        + [("shift", ctypes.c_double)]
    )


@dataclass
class Case:
    """Inputs of one call; without reference points, positions are locations and scores weights."""

    shapes: Shapes
    value: Tensor
    positions: Tensor
    scores: Tensor
    grad_output: Tensor
    reference: Tensor | None = None
    valid_sizes: Tensor | None = None
    grad_weight_sum: Tensor | None = None

    def as_type(self, dtype: torch.dtype) -> Case:
        """Gives the case with values of a type, and coordinates of the type that goes with it."""
        real = torch.float64 if dtype == torch.float64 else torch.float32
        return replace(
            self,
            value=self.value.to(dtype),
            grad_output=self.grad_output.to(dtype),
            positions=self.positions.to(real),
            scores=self.scores.to(real),
            reference=None if self.reference is None else self.reference.to(real),
        )


@dataclass
class Results:
    """Outputs of one call. NaN shows what was never written."""

    output: Tensor
    weight_sum: Tensor
    grad_value: Tensor
    grad_positions: Tensor
    grad_scores: Tensor
    grad_reference: Tensor | None


def _empty_results(case: Case) -> Results:
    real = case.positions.dtype
    unwritten = float("nan")
    return Results(
        output=torch.full_like(case.grad_output, unwritten),
        weight_sum=torch.full(case.scores.shape[:3], unwritten, dtype=real),
        # The gradient of the values starts at zero, as the operator hands it over.
        grad_value=torch.zeros(case.value.shape, dtype=real),
        grad_positions=torch.full_like(case.positions, unwritten),
        grad_scores=torch.full_like(case.scores, unwritten),
        grad_reference=None
        if case.reference is None
        else torch.full_like(case.reference, unwritten),
    )


def _call(
    function: Callable[..., int],
    case: Case,
    results: Results,
    lanes: int,
    *arguments: object,
    vector: int = 1,
    shift: float = 0.5,
) -> None:
    batch, queries, heads, levels, points = case.scores.shape
    value_heads, channels = case.value.shape[2:]
    strides = case.value.stride()
    # The host's memory is aligned to 16 bytes; a vector may begin only at a multiple of its size.
    assert strides[3] == 1
    assert vector == 1 or all(stride % vector == 0 for stride in strides[:3])
    head_stride = 0 if value_heads == 1 else strides[2]
    sizes = (batch, case.value.shape[1], queries, *strides[:2], head_stride)
    shapes = torch.tensor(case.shapes)
    counts = (heads, value_heads, channels, levels, points)
    reference_size = 0 if case.reference is None else case.reference.shape[-1]
    tensors = (
        *(shapes, case.valid_sizes, case.value, case.grad_output, case.grad_weight_sum),
        *(case.reference, case.positions, case.scores),
        *(results.output, results.weight_sum, results.grad_value),
        *(results.grad_reference, results.grad_positions, results.grad_scores),
    )
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    call = Call(*sizes, *counts, reference_size, lanes, vector, *pointers, shift)
    assert function(ctypes.byref(call), *arguments) == 0, "the lanes did not stay together"


def run_lane_group(library: ctypes.CDLL, case: Case, lanes: int, vector: int) -> Results:
    """Gives output and gradients, with additions in the order of the items."""
    results = _empty_results(case)
    function = getattr(library, _ENTRY_POINTS[case.value.dtype])
    _call(function, case, results, lanes, ctypes.c_bool(False), vector=vector)
    results.weight_sum = results.weight_sum.flatten(2)
    return results


def run_in_order(library: ctypes.CDLL, case: Case, lanes: int, vector: int) -> Tensor:
    """Gives the gradient of the values by the bodies that need no atomic addition."""
    results = _empty_results(case)
    function = getattr(library, _ENTRY_POINTS[case.value.dtype])
    _call(function, case, results, lanes, ctypes.c_bool(True), vector=vector)
    return results.grad_value


def run_sampling(library: ctypes.CDLL, case: Case, lanes: int) -> tuple[Tensor, Tensor]:
    """Gives locations and weights of the samples."""
    results = _empty_results(case)
    _call(library.run_sampling, case, results, lanes)
    return results.grad_positions, results.grad_scores


def run_map(library: ctypes.CDLL, case: Case, lanes: int, shift: float) -> Tensor:
    """Gives the map of the attention weights, (B, N)."""
    case = replace(case, value=case.value[:, :, :1, :1].contiguous())
    results = _empty_results(case)
    _call(library.run_map, case, results, lanes, shift=shift)
    return results.grad_value[:, :, 0, 0]
