"""Deformable attention by `grid_sample`: what the compiled operators are compared with.

There are several ways to write it. All that are worth a try are here and all are measured, so that
the comparison is with the fastest one and not with a straw man.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..structures import Size


def _sampled_levels(
    value: Tensor, spatial_shapes: Sequence[Size], sampling_locations: Tensor
) -> list[Tensor]:
    """What each level gives at the locations: L tensors (B * H, D, Q, P)."""
    batch, _, heads, channels = value.shape
    grids = 2 * sampling_locations - 1
    per_level = torch.split(value, [height * width for height, width in spatial_shapes], dim=1)
    sampled = []
    for level, (height, width) in enumerate(spatial_shapes):
        level_map = per_level[level].flatten(2).transpose(1, 2)
        level_map = level_map.reshape(batch * heads, channels, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled.append(
            F.grid_sample(
                level_map, grid, mode="bilinear", padding_mode="zeros", align_corners=False
            )
        )
    return sampled


def released_attention(
    value: Tensor,
    spatial_shapes: Sequence[Size],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Attention the way the released code computes it without its CUDA operator.

    One `grid_sample` per level; the samples of all levels are stacked, weighted and added up.

    Args:
        value: (B, N, H, D).
        spatial_shapes: L pairs (H_l, W_l).
        sampling_locations: (B, Q, H, L, P, 2), normalised (x, y).
        attention_weights: (B, Q, H, L, P).

    Returns:
        (B, Q, H * D).

    Source: Deformable DETR, section 4.1; its code for the steps.
    """
    batch, queries, heads, levels, points, _ = sampling_locations.shape
    sampled = _sampled_levels(value, spatial_shapes, sampling_locations)
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    weighted = torch.stack(sampled, dim=-2).flatten(-2) * weights
    return weighted.sum(-1).view(batch, -1, queries).transpose(1, 2).contiguous()


def level_sum_attention(
    value: Tensor,
    spatial_shapes: Sequence[Size],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """The same, adding up each level as it comes instead of stacking all: less memory.

    Arguments and result as in :func:`released_attention`.
    """
    batch, queries = sampling_locations.shape[:2]
    weights = attention_weights.permute(0, 2, 3, 1, 4).flatten(0, 1)  # (B * H, L, Q, P)
    output = value.new_zeros(())
    for level, sampled in enumerate(_sampled_levels(value, spatial_shapes, sampling_locations)):
        output = output + (sampled * weights[:, level].unsqueeze(1)).sum(-1)
    return output.view(batch, -1, queries).transpose(1, 2).contiguous()


def contracted_attention(
    value: Tensor,
    spatial_shapes: Sequence[Size],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """The same with one contraction in place of multiplication and sum.

    Arguments and result as in :func:`released_attention`.
    """
    batch, queries, heads, levels, points, _ = sampling_locations.shape
    sampled = torch.cat(_sampled_levels(value, spatial_shapes, sampling_locations), dim=-1)
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, queries, levels * points)
    output = torch.einsum("hcqs,hqs->hcq", sampled, weights)
    return output.reshape(batch, -1, queries).transpose(1, 2).contiguous()


GRID_SAMPLE_WAYS = {
    "grid_sample (released)": released_attention,
    "grid_sample (level by level)": level_sum_attention,
    "grid_sample (einsum)": contracted_attention,
}
