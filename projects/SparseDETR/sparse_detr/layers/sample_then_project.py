"""Deformable attention that samples first and projects the samples, not the tokens.

Projection to values and bilinear sampling are both linear, so their order is free:
`out_h = W_h sum_i(a_i x_i) + b_h sum_i(a_i)`, both sums over the cells that exist. With few queries
this projects Q * H rows instead of N.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_detr.layers import backend
from sparse_detr.layers.ms_deform_attn import (
    ARGUMENT_ERRORS,
    Samples,
    check_raw_samples,
    flat,
    is_native,
    ms_deform_attn_fused,
    named_samples,
)
from sparse_detr.layers.operator_checks import (
    check_covered,
    check_extents_shape,
    check_spatial_shapes,
    check_tensors,
)

# Queries per token below which sampling first is faster on a CPU; measured, see
# docs/performance.md. A gradient moves the balance: it scatters rows of C channels, not of D.
QUERIES_PER_TOKEN = 0.15
QUERIES_PER_TOKEN_WITH_GRADIENT = 0.15


def sample_then_project(
    source: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    value_weight: Tensor,
    value_bias: Tensor,
    valid_sizes: Tensor | None = None,
) -> Tensor:
    """Gives the attention of :func:`ms_deform_attn_fused` on values that are never computed.

    Equal to projecting `source` to values first, up to rounding, in output and every gradient.

    Args:
        source: (B, N, C) tokens.
        spatial_shapes: (height, width) of each of the L levels, Python ints.
        reference_points: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh, normalised.
        sampling_offsets: (B, Q, H, L, P, 2).
        attention_logits: (B, Q, H, L, P).
        value_weight: (H * D, C) of the projection to values, head after head.
        value_bias: (H * D).
        valid_sizes: (B, L, 2) int64, as in :func:`ms_deform_attn`.

    Returns:
        (B, Q, H * D), in the dtype of `source`.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If the shapes or devices of the arguments do not fit together.

    Source: linearity of Deformable DETR's equation 3.
    """
    samples = (reference_points, sampling_offsets, attention_logits)
    projection = (value_weight, value_bias)
    if is_native(source):
        try:
            output: Tensor = torch.ops.sparse_detr.sample_then_project(
                source, flat(spatial_shapes), *samples, *projection, valid_sizes
            )
            return output
        except ARGUMENT_ERRORS:
            _check(source, spatial_shapes, samples, projection, valid_sizes)
            raise
    shapes = _check(source, spatial_shapes, samples, projection, valid_sizes)
    heads = sampling_offsets.shape[2]
    channels = value_weight.shape[0] // heads
    value = F.linear(source, *projection).view(*source.shape[:2], heads, channels)
    return ms_deform_attn_fused(value, shapes, *samples, valid_sizes)


def _check(
    source: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    samples: Samples,
    projection: tuple[Tensor, Tensor],
    valid_sizes: Tensor | None,
) -> list[tuple[int, int]]:
    shapes = check_spatial_shapes(spatial_shapes)
    weight, bias = projection
    values = {"source": source, "value_weight": weight, "value_bias": bias}
    check_tensors(values, named_samples(samples), valid_sizes)
    if source.dim() != 3 or source.shape[2] == 0:
        raise ValueError(f"source: got shape {tuple(source.shape)}, expected (B, N, C)")
    batch, tokens, channels = source.shape
    check_covered("source", tokens, shapes)
    heads = samples[1].shape[2] if samples[1].dim() == 6 else 0
    check_raw_samples(samples, (batch, heads, len(shapes)))
    check_extents_shape(valid_sizes, batch, len(shapes))
    _check_projection(weight, bias, channels, heads)
    return shapes


def _check_projection(weight: Tensor, bias: Tensor, channels: int, heads: int) -> None:
    got = tuple(weight.shape)
    if len(got) != 2 or got[1] != channels or got[0] == 0 or got[0] % heads:
        raise ValueError(
            f"value_weight: got shape {got}, expected (H * D, {channels}) for {heads} heads"
        )
    if tuple(bias.shape) != got[:1]:
        raise ValueError(f"value_bias: got shape {tuple(bias.shape)}, expected {got[:1]}")


def sampling_first_is_faster(
    device_type: str, queries: int, tokens: int, with_gradient: bool
) -> bool:
    """Whether to sample before projecting, by the measured ratio of queries to tokens.

    Args:
        device_type: Type of the device, such as "cpu". Never True on another one: a GPU projects
            all tokens in less time than the wider reads cost.
        queries: Queries Q of each image.
        tokens: Tokens N of each image.
        with_gradient: Whether a backward pass follows.
    """
    if device_type != "cpu" or not backend.is_native(device_type):
        return False
    limit = QUERIES_PER_TOKEN_WITH_GRADIENT if with_gradient else QUERIES_PER_TOKEN
    return queries < limit * tokens
