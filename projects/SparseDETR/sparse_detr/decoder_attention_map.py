"""The decoder cross-attention map (DAM): how much the decoder looked at each token.

Role in the flow: read from the decoder's sampling by the criterion (target of the scoring
network), by evaluation (Corr) and by pictures. Nothing here carries a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .layers import backend
from .layers.operator_checks import check_spatial_shapes
from .layers.precision import at_least_float32
from .query_selection.encoder_proposals import top_tokens
from .structures import DetectorOutput, KeptTokens, Sampling, Size


@torch.no_grad()
def attention_received(output: DetectorOutput, half_cell_shift: bool = True) -> Tensor:
    """The decoder cross-attention map of a forward pass, whatever attention the decoder has.

    Args:
        output: Of a forward pass with ``with_sampling=True``.
        half_cell_shift: For deformable attention, see :func:`decoder_attention_map`. Dense
            attention reads whole cells.

    Returns:
        (B, N), in float32 or float64.

    Raises:
        ValueError: The output does not say where the decoder looked.

    Source: Sparse DETR, section 3.2: for dense attention the map is the sum of the attention maps
        of all decoder layers.
    """
    decoded = output.decoder
    if decoded.attention_maps:
        layers = [layer.sum(1) for layer in decoded.attention_maps]
        return torch.stack(layers).sum(0)
    if not decoded.sampling:
        raise ValueError(
            "output must come from a forward pass with_sampling=True, got neither sampling nor "
            "attention maps of the decoder"
        )
    return decoder_attention_map(decoded.sampling, output.tokens.spatial_shapes, half_cell_shift)


@torch.no_grad()
def decoder_attention_map(
    sampling: Sequence[Sampling],
    spatial_shapes: Sequence[Size],
    half_cell_shift: bool = True,
) -> Tensor:
    """Attention weight that each token received, over layers, heads, queries and points.

    Each weight is spread bilinearly over the four cells around its location; what falls outside
    the map is dropped, and so is a sample whose location is not finite.

    Args:
        sampling: Sampling of the cross-attention of each decoder layer, all of one shape.
        spatial_shapes: L pairs (H_l, W_l).
        half_cell_shift: True is the released behaviour, on which the released weights rest: the
            coordinate is ``location * size``, half a cell to the lower right of where the
            attention reads. False spreads to the cells that were read.

    Returns:
        (B, N), in float32 or float64. On the CPU the same bits for every number of threads.

    Raises:
        TypeError: If ``spatial_shapes`` does not hold pairs of Python ints.
        ValueError: If there is no layer, or shapes do not fit together.

    Source: Sparse DETR, section 3.2 and appendix A.3.
    """
    shapes = check_spatial_shapes(spatial_shapes)
    _check_sampling(sampling, len(shapes))
    first = sampling[0]
    dtype = at_least_float32(torch.promote_types(first.locations.dtype, first.weights.dtype))
    locations = [layer.locations.detach().to(dtype) for layer in sampling]
    weights = [layer.weights.detach().to(dtype) for layer in sampling]
    if backend.is_native(first.weights.device.type):
        flat_shapes = [size for shape in shapes for size in shape]
        attention: Tensor = torch.ops.sparse_detr.decoder_attention_map(
            locations, weights, flat_shapes, half_cell_shift
        )
        return attention
    return decoder_attention_map_torch(locations, weights, shapes, half_cell_shift)


def _check_sampling(sampling: Sequence[Sampling], num_levels: int) -> None:
    """Raises a ValueError unless all layers have the same shape and ``num_levels`` levels."""
    if not sampling:
        raise ValueError("sampling: got no layer, expected the sampling of at least one")
    first = tuple(sampling[0].locations.shape)
    if len(first) != 6 or first[3] != num_levels or first[5] != 2:
        raise ValueError(
            f"sampling: got locations of shape {first}, expected (B, Q, H, {num_levels}, P, 2) to "
            f"match the {num_levels} levels of spatial_shapes"
        )
    for index, layer in enumerate(sampling):
        shapes = tuple(layer.locations.shape), tuple(layer.weights.shape)
        if shapes != (first, first[:-1]):
            raise ValueError(
                f"sampling: got locations {shapes[0]} and weights {shapes[1]} for layer {index}, "
                f"expected {first} and {first[:-1]}"
            )


def decoder_attention_map_torch(
    locations: Sequence[Tensor],
    weights: Sequence[Tensor],
    spatial_shapes: Sequence[Size],
    half_cell_shift: bool,
) -> Tensor:
    """The map without compiled operators, and what these are compared with.

    Args:
        locations: (B, Q, H, L, P, 2) of each decoder layer.
        weights: (B, Q, H, L, P) of each decoder layer, of the same dtype.
        spatial_shapes: L pairs (H_l, W_l).
        half_cell_shift: See :func:`decoder_attention_map`.

    Returns:
        (B, N).
    """
    total = weights[0].new_zeros(len(weights[0]), sum(h * w for h, w in spatial_shapes))
    shift = 0.0 if half_cell_shift else 0.5
    for all_locations, all_weights in zip(locations, weights, strict=True):
        start = 0
        for level, (height, width) in enumerate(spatial_shapes):
            if height * width == 0:
                continue  # no cell that a dropped sample could name
            samples = all_locations[:, :, :, level].flatten(1, 3)
            weight = all_weights[:, :, :, level].flatten(1)
            u = samples * samples.new_tensor([width, height]) - shift
            low = u.floor()
            fraction = u - low
            for corner_x in (0, 1):
                for corner_y in (0, 1):
                    x, y = low[..., 0] + corner_x, low[..., 1] + corner_y
                    share_x = fraction[..., 0] if corner_x else 1 - fraction[..., 0]
                    share_y = fraction[..., 1] if corner_y else 1 - fraction[..., 1]
                    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
                    share = torch.where(inside, weight * share_x * share_y, 0)
                    cell = torch.where(inside, y * width + x, 0).long() + start
                    total.scatter_add_(1, cell, share)
            start += height * width
    return total


def _fake_map(
    locations: Sequence[Tensor],
    weights: Sequence[Tensor],
    spatial_shapes: Any,
    half_cell_shift: Any,
) -> Tensor:
    pairs = zip(spatial_shapes[::2], spatial_shapes[1::2], strict=True)
    return locations[0].new_empty((locations[0].shape[0], sum(h * w for h, w in pairs)))


if backend.extension_status.loaded:
    torch.library.register_fake("sparse_detr::decoder_attention_map", _fake_map)


@torch.no_grad()
def binarised_target(
    attention_map: Tensor, padding_mask: Tensor, kept_counts: Sequence[int]
) -> Tensor:
    """The tokens that the decoder looked at most, as 0/1 target of the scoring network.

    Args:
        attention_map: (B, N).
        padding_mask: (B, N) bool; padding comes last.
        kept_counts: How many tokens to mark in each image.

    Returns:
        (B, N) of zeros and ones.

    Source: Sparse DETR, section 3.2, equation 4.
    """
    masked = attention_map.masked_fill(padding_mask, attention_map.min() - 1)
    top = top_tokens(masked, min(max(kept_counts), masked.shape[1]))
    own = KeptTokens(top, tuple(kept_counts)).membership(masked.shape[1])
    return own.to(attention_map.dtype)


@torch.no_grad()
def correlation(
    attention_map: Tensor, selected: Tensor, spatial_shapes: Sequence[Size] | None = None
) -> Tensor:
    """Share of the attention map that falls on the selected tokens (Corr).

    Args:
        attention_map: (B, N).
        selected: (B, N) bool.
        spatial_shapes: Give the share within each level instead of over all.

    Returns:
        (B,), or (L, B) by level; NaN where a level received nothing.

    Source: Sparse DETR, section 4.3 (Corr).
    """
    hit, received = _received(attention_map, selected, spatial_shapes)
    return hit / received


@torch.no_grad()
def correlations(
    attention_map: Tensor, selected: Tensor, spatial_shapes: Sequence[Size]
) -> tuple[Tensor, Tensor]:
    """Corr over all tokens (B,), and by level (L, B); see :func:`correlation`."""
    hit, received = _received(attention_map, selected, spatial_shapes)
    return hit.sum(0) / received.sum(0), hit / received


def _received(
    attention_map: Tensor, selected: Tensor, spatial_shapes: Sequence[Size] | None
) -> tuple[Tensor, Tensor]:
    """Attention on the selected tokens and on all tokens: each (B,), or (L, B) by level."""
    hit = attention_map * selected
    if spatial_shapes is None:
        return hit.sum(1), attention_map.sum(1)
    lengths = [h * w for h, w in spatial_shapes]
    sums = [
        torch.stack([level.sum(1) for level in torch.split(values, lengths, dim=1)])
        for values in (hit, attention_map)
    ]
    return sums[0], sums[1]
