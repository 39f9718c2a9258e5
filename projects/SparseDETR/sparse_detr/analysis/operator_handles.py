"""Reads the operators' shapes from a trace: what fvcore calls for each traced operator.

fvcore hands the inputs and outputs of a traced operator to the handle of its name. The handles
here take the shapes from them and apply the formulas of :mod:`.operator_flops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fvcore.nn.jit_handles import get_shape

from . import operator_flops as flops
from .operator_flops import SamplingSize

Handle = Callable[[list[Any], list[Any]], int]


def _shape(value: Any) -> tuple[int, ...]:
    """Shape of a traced tensor."""
    shape = get_shape(value)
    if shape is None:
        raise ValueError(
            f"a traced operator has an input without a known shape ({value.debugName()}); count "
            "with an image of fixed size"
        )
    return tuple(shape)


def _sampling(value: Any) -> SamplingSize:
    """Size of what is sampled, from a tensor (B, Q, H, L, P) or (B, Q, H, L, P, 2)."""
    return SamplingSize(*_shape(value)[:5])


def ms_deform_attn(inputs: list[Any], outputs: list[Any]) -> int:
    """See :func:`.operator_flops.ms_deform_attn_flops`."""
    return flops.ms_deform_attn_flops(_sampling(inputs[3]), _shape(inputs[0])[-1])


def ms_deform_attn_fused(inputs: list[Any], outputs: list[Any]) -> int:
    """See :func:`.operator_flops.ms_deform_attn_fused_flops`."""
    return flops.ms_deform_attn_fused_flops(_sampling(inputs[4]), _shape(inputs[0])[-1])


def deform_attn_sampling(inputs: list[Any], outputs: list[Any]) -> int:
    """See :func:`.operator_flops.deform_attn_sampling_flops`."""
    return flops.deform_attn_sampling_flops(_sampling(inputs[2]))


def sample_then_project(inputs: list[Any], outputs: list[Any]) -> int:
    """See :func:`.operator_flops.sample_then_project_flops`."""
    size = _sampling(inputs[4])
    rows, channels = _shape(inputs[5])
    return flops.sample_then_project_flops(size, channels, rows // size.heads)


def decoder_attention_map(inputs: list[Any], outputs: list[Any]) -> int:
    """See :func:`.operator_flops.decoder_attention_map_flops`."""
    layers = [_sampling(layer) for layer in inputs[1].node().inputs()]
    return flops.decoder_attention_map_flops(layers)


def grid_sampler(inputs: list[Any], outputs: list[Any]) -> int:
    """See :func:`.operator_flops.grid_sample_flops`."""
    batch, channels, height, width = _shape(outputs[0])
    return flops.grid_sample_flops(batch * height * width, channels)


def scaled_dot_product_attention(inputs: list[Any], outputs: list[Any]) -> int:
    """See :func:`.operator_flops.attention_flops`; fvcore has no handle for it."""
    *leading, queries, channels = _shape(inputs[0])
    *_, keys, read = _shape(inputs[2])
    return flops.attention_flops(math.prod(leading), queries, keys, channels, read)


def einsum(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of a contraction of two tensors: the product of all its index lengths.

    fvcore's own handle rounds, and reads a text that NumPy prints.
    """
    equation = inputs[0].toIValue().replace(" ", "")
    operands = equation.split("->")[0].split(",")
    if len(operands) != 2 or "." in equation:
        raise ValueError(f"einsum {equation!r} cannot be counted: expected two operands, no '...'")
    lengths: dict[str, int] = {}
    for letters, value in zip(operands, inputs[1].node().inputs(), strict=True):
        lengths.update(zip(letters, _shape(value), strict=True))
    return math.prod(lengths.values())


def layer_norm(inputs: list[Any], outputs: list[Any]) -> int:
    """5 per element, 4 without weights: fvcore's estimate, which it refuses for a single row."""
    return math.prod(_shape(inputs[0])) * (4 if get_shape(inputs[2]) is None else 5)


HONEST_HANDLES: Mapping[str, Handle] = {
    "sparse_detr::ms_deform_attn": ms_deform_attn,
    "sparse_detr::ms_deform_attn_fused": ms_deform_attn_fused,
    "sparse_detr::deform_attn_sampling": deform_attn_sampling,
    "sparse_detr::sample_then_project": sample_then_project,
    "sparse_detr::decoder_attention_map": decoder_attention_map,
    "aten::grid_sampler": grid_sampler,
    "aten::scaled_dot_product_attention": scaled_dot_product_attention,
    "aten::einsum": einsum,
    "aten::layer_norm": layer_norm,
}


def released_ms_deform_attn(inputs: list[Any], outputs: list[Any]) -> int:
    """4 per sampled value: what fvcore counts for the `grid_sample` calls of the released code."""
    return flops.gather_flops(_sampling(inputs[3]).samples, _shape(inputs[0])[-1])


def released_ms_deform_attn_fused(inputs: list[Any], outputs: list[Any]) -> int:
    """The same for the fused operator."""
    return flops.gather_flops(_sampling(inputs[4]).samples, _shape(inputs[0])[-1])


def released_sample_then_project(inputs: list[Any], outputs: list[Any]) -> int:
    """Projection of all tokens, then 4 per sampled value: the only order that was released."""
    size = _sampling(inputs[4])
    rows, channels = _shape(inputs[5])
    batch, tokens = _shape(inputs[0])[:2]
    projection = batch * tokens * channels * rows
    return projection + flops.gather_flops(size.samples, rows // size.heads)


def released_grid_sampler(inputs: list[Any], outputs: list[Any]) -> int:
    """4 per output element, as fvcore counts it."""
    return flops.CORNERS * math.prod(_shape(outputs[0]))


def released_dense_attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Logits over as many channels as a value has.

    A query and key with more of them carry a Gaussian prior here, which the released code computes
    by element-wise arithmetic that fvcore does not see.
    """
    *leading, queries, _ = _shape(inputs[0])
    *_, keys, read = _shape(inputs[2])
    return flops.attention_flops(math.prod(leading), queries, keys, read, read)


def not_counted(inputs: list[Any], outputs: list[Any]) -> int:
    """Zero."""
    return 0


RELEASED_HANDLES: Mapping[str, Handle] = {
    **HONEST_HANDLES,
    "sparse_detr::ms_deform_attn": released_ms_deform_attn,
    "sparse_detr::ms_deform_attn_fused": released_ms_deform_attn_fused,
    "sparse_detr::deform_attn_sampling": not_counted,
    "sparse_detr::sample_then_project": released_sample_then_project,
    "sparse_detr::decoder_attention_map": not_counted,
    "aten::grid_sampler": released_grid_sampler,
    "aten::scaled_dot_product_attention": released_dense_attention,
    # Written out there as element-wise arithmetic with fixed numbers, which fvcore does not see.
    "aten::batch_norm": not_counted,
}

# Releases on Detectron2 run frozen batch norms as one operator, which fvcore counts.
RELEASED_WITH_NORMS_HANDLES: Mapping[str, Handle] = {
    name: handle for name, handle in RELEASED_HANDLES.items() if name != "aten::batch_norm"
}

# Operators without a contraction: named, so that one that has some and no handle cannot go
# unnoticed. fvcore knows most of those that only move data.
ELEMENTWISE = frozenset(
    "aten::" + name
    for name in (
        *("add", "add_", "div", "div_", "mul", "neg", "pow", "rsub", "sub"),
        *("cos", "gelu", "log", "sigmoid", "sin", "softmax"),
        *("__lshift__", "__or__", "__rshift__", "__xor__", "isinf", "isnan", "lt", "ne", "where"),
        *("all", "amax", "amin", "cumsum", "max_pool2d", "mean", "min", "minimum", "sum"),
        *("sort", "topk"),
        *("clone", "embedding", "expand_as", "fill_", "flip", "index_copy_", "index_select"),
        *("logit", "masked_fill_", "masked_scatter", "meshgrid", "numel", "pad", "rand"),
        *("scatter", "unflatten"),
    )
)
