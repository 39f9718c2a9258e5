"""What is compared with what: each operator, and the ways to do without it.

Role in the flow: `tools/benchmark_ops.py` times the calls of a case against each other, and
measures the peak memory of one call of it in a fresh process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decoder_attention_map import decoder_attention_map
from ..layers.backend import use_backend
from ..layers.ms_deform_attn import deform_attn_sampling, ms_deform_attn, ms_deform_attn_fused
from ..layers.ms_deform_attn_reference import sampling_torch
from ..layers.sample_then_project import sample_then_project
from ..structures import Sampling
from ..testing.released_attention_map import released_attention_map
from .grid_sample_path import GRID_SAMPLE_WAYS
from .operator_inputs import OperatorInputs
from .operator_peers import Attention
from .peak_memory import tensor_bytes
from .timing import Call

OURS = "ours"
_DECODER_LAYERS = 6


@dataclass(frozen=True)
class OperatorCase:
    """One operator on one set of queries.

    Attributes:
        operator: Name of the operator.
        candidates: What is timed against each other, by name; :data:`OURS` is the first.
        baseline: The candidate that the aims are stated against.
        gathered_bytes: Bytes of values that :data:`OURS` reads, corner by corner; 0 where that
            says nothing.
        result_bytes: Bytes of outputs and gradients.
    """

    operator: str
    candidates: dict[str, Call]
    baseline: str
    gathered_bytes: int
    result_bytes: int


def make_operator_case(
    operator: str,
    inputs: OperatorInputs,
    backward: bool,
    peers: dict[str, Attention] | None = None,
) -> OperatorCase:
    """Gives the comparison of an operator.

    Args:
        operator: One of :data:`OPERATORS`.
        inputs: Its inputs.
        backward: Also compute the gradients.
        peers: Attention of other packages.
    """
    return OPERATORS[operator](inputs, backward, peers or {})


def _called(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad_output: Tensor,
    backward: bool,
) -> Call:
    """A call of a function of tensors, with its gradients if asked for."""
    if not backward:
        # Nothing is recorded for tensors that need no gradient.
        return partial(function, *(tensor.detach() for tensor in inputs))
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]

    def forward_and_backward() -> tuple[Tensor, ...]:
        output = function(*leaves)
        return (output, *torch.autograd.grad(output, leaves, grad_output.to(output.dtype)))

    return forward_and_backward


def _result_bytes(output: Tensor, inputs: Sequence[Tensor], backward: bool) -> int:
    return tensor_bytes([output, *inputs] if backward else [output])


def _in_float32(attention: Attention) -> Attention:
    """An attention in the type of the locations: `grid_sample` wants one type for all."""

    def call(
        value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
    ) -> Tensor:
        output = attention(value.to(locations.dtype), spatial_shapes, locations, weights)
        return output.to(value.dtype)

    return call


def _torch_backend(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """This project's own path without compiled operators."""
    with use_backend("torch"):
        return ms_deform_attn(value, spatial_shapes, locations, weights)


def attention_case(
    inputs: OperatorInputs, backward: bool, peers: dict[str, Attention]
) -> OperatorCase:
    """`ms_deform_attn` against every way to do it with `grid_sample`, and other packages."""
    shapes = inputs.spatial_shapes
    ways: dict[str, Attention] = {
        OURS: ms_deform_attn,
        **{name: _in_float32(way) for name, way in GRID_SAMPLE_WAYS.items()},
        "torch backend": _torch_backend,
        **{name: _in_float32(peer) for name, peer in peers.items()},
    }
    tensors = (inputs.value, inputs.sampling_locations, inputs.attention_weights)

    def bound(way: Attention) -> Callable[..., Tensor]:
        return lambda value, locations, weights: way(value, shapes, locations, weights)

    return OperatorCase(
        "ms_deform_attn",
        {
            name: _called(bound(way), tensors, inputs.grad_output, backward)
            for name, way in ways.items()
        },
        next(iter(GRID_SAMPLE_WAYS)),
        0 if backward else inputs.gathered_bytes(),
        _result_bytes(inputs.grad_output, tensors, backward),
    )


def fused_case(inputs: OperatorInputs, backward: bool, peers: dict[str, Attention]) -> OperatorCase:
    """`ms_deform_attn_fused` against softmax and locations in torch before `ms_deform_attn`."""
    shapes, reference = inputs.spatial_shapes, inputs.reference_points

    def fused(value: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
        return ms_deform_attn_fused(value, shapes, reference, offsets, logits)

    def in_torch(value: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
        locations, weights = sampling_torch(reference, offsets, logits, shapes)
        return ms_deform_attn(value, shapes, locations, weights)

    def in_torch_flat(value: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
        locations, weights = flat_sampling(reference, offsets, logits, shapes)
        return ms_deform_attn(value, shapes, locations, weights)

    tensors = (inputs.value, inputs.sampling_offsets, inputs.attention_logits)
    ways = {
        OURS: fused,
        "torch arithmetic + ms_deform_attn": in_torch,
        "flat torch arithmetic + ms_deform_attn": in_torch_flat,
    }
    return OperatorCase(
        "ms_deform_attn_fused",
        {name: _called(way, tensors, inputs.grad_output, backward) for name, way in ways.items()},
        "torch arithmetic + ms_deform_attn",
        0 if backward else inputs.gathered_bytes(),
        _result_bytes(inputs.grad_output, tensors, backward),
    )


def flat_sampling(
    reference: Tensor, offsets: Tensor, logits: Tensor, spatial_shapes: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Locations and weights with one divisor per number, where broadcasts over pairs are slow.

    Arguments and result as in :func:`sampling_torch`.
    """
    if reference.shape[-1] == 4:
        return sampling_torch(reference, offsets, logits, spatial_shapes)
    _, _, heads, _, points, _ = offsets.shape
    size = offsets.new_tensor([(w, h) for h, w in spatial_shapes])[:, None]
    divisor = size.expand(heads, -1, points, -1).reshape(-1)
    steps = (offsets.flatten(2) / divisor).view(offsets.shape)
    weights = logits.flatten(-2).softmax(-1).view(logits.shape)
    return reference[:, :, None, :, None] + steps, weights


def projection_case(
    inputs: OperatorInputs, backward: bool, peers: dict[str, Attention]
) -> OperatorCase:
    """`sample_then_project` against a linear layer on all tokens before the fused operator."""
    shapes, reference = inputs.spatial_shapes, inputs.reference_points
    heads = inputs.value.shape[2]

    def sampled_first(
        source: Tensor, offsets: Tensor, logits: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        return sample_then_project(source, shapes, reference, offsets, logits, weight, bias)

    def projected_first(
        source: Tensor, offsets: Tensor, logits: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        value = F.linear(source, weight, bias).view(*source.shape[:2], heads, -1)
        return ms_deform_attn_fused(value, shapes, reference, offsets, logits)

    tensors = (
        inputs.source,
        inputs.sampling_offsets,
        inputs.attention_logits,
        inputs.value_weight,
        inputs.value_bias,
    )
    ways = {OURS: sampled_first, "F.linear + ms_deform_attn_fused": projected_first}
    return OperatorCase(
        "sample_then_project",
        {name: _called(way, tensors, inputs.grad_output, backward) for name, way in ways.items()},
        "F.linear + ms_deform_attn_fused",
        0 if backward else heads * inputs.gathered_bytes(),
        _result_bytes(inputs.grad_output, tensors, backward),
    )


def sampling_case(
    inputs: OperatorInputs, backward: bool, peers: dict[str, Attention]
) -> OperatorCase:
    """`deform_attn_sampling` against the same in torch; it has no gradient."""
    shapes = inputs.spatial_shapes
    raw = (inputs.reference_points, inputs.sampling_offsets, inputs.attention_logits)

    def in_torch() -> object:
        with torch.no_grad():
            return sampling_torch(*raw, shapes)

    def in_torch_flat() -> object:
        with torch.no_grad():
            return flat_sampling(*raw, shapes)

    return OperatorCase(
        "deform_attn_sampling",
        {
            OURS: lambda: deform_attn_sampling(*raw, shapes),
            "torch arithmetic": in_torch,
            "flat torch arithmetic": in_torch_flat,
        },
        "torch arithmetic",
        0,
        tensor_bytes([inputs.sampling_locations, inputs.attention_weights]),
    )


def attention_map_case(
    inputs: OperatorInputs, backward: bool, peers: dict[str, Attention]
) -> OperatorCase:
    """`decoder_attention_map` over six layers against the released scatter; no gradient."""
    shapes = inputs.spatial_shapes
    # Each layer a bit elsewhere, as refined boxes are.
    layers = [
        Sampling(inputs.sampling_locations + 0.002 * layer, inputs.attention_weights.clone())
        for layer in range(_DECODER_LAYERS)
    ]

    def in_torch() -> object:
        with use_backend("torch"):
            return decoder_attention_map(layers, shapes)

    return OperatorCase(
        "decoder_attention_map",
        {
            OURS: lambda: decoder_attention_map(layers, shapes),
            "scatter_add (released)": lambda: released_attention_map(layers, shapes),
            "torch backend": in_torch,
        },
        "scatter_add (released)",
        0,
        inputs.value.shape[0] * inputs.num_tokens * inputs.attention_weights.element_size(),
    )


OPERATORS: dict[str, Callable[[OperatorInputs, bool, dict[str, Attention]], OperatorCase]] = {
    "ms_deform_attn": attention_case,
    "ms_deform_attn_fused": fused_case,
    "sample_then_project": projection_case,
    "deform_attn_sampling": sampling_case,
    "decoder_attention_map": attention_map_case,
}
WITHOUT_GRADIENT = ("deform_attn_sampling", "decoder_attention_map")
