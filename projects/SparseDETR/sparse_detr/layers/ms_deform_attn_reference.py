"""Multi-scale deformable attention in pure torch: the path without compiled operators.

It runs wherever `grid_sample` does, gives what the compiled operators give, and is what they are
tested against.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Normalised grid coordinate whose four corners lie outside a map of any size.
_OUTSIDE = -4.0


def ms_deform_attn_torch(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Gives the attended values, by one `grid_sample` per level.

    Args:
        value: (B, N, H, D), float32 or float64.
        spatial_shapes: (height, width) of each of the L levels, in tokens.
        sampling_locations: (B, Q, H, L, P, 2), normalised (x, y). Locations outside a level, and
            those that are not finite, contribute zero and receive zero gradients.
        attention_weights: (B, Q, H, L, P).

    Returns:
        (B, Q, H * D).

    Source: Deformable DETR, section 4.1, equation 3.
    """
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    if batch == 0 or queries == 0 or value.shape[1] == 0:
        return _zeros(value, sampling_locations, attention_weights)
    maps = value.permute(0, 2, 3, 1).reshape(batch * heads, channels, -1)
    output = value.new_zeros(())
    start = 0
    for level, (height, width) in enumerate(spatial_shapes):
        if height * width == 0:
            continue
        level_map = maps[:, :, start : start + height * width]
        output = output + _attend_level(
            level_map.reshape(batch * heads, channels, height, width),
            sampling_locations[:, :, :, level],
            attention_weights[:, :, :, level],
        )
        start += height * width
    return output.view(batch, heads, channels, queries).permute(0, 3, 1, 2).flatten(2)


def sampling_torch(
    reference_points: Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
) -> tuple[Tensor, Tensor]:
    """Gives locations and weights of the samples from the raw outputs of the layers.

    Args:
        reference_points: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh, normalised.
        sampling_offsets: (B, Q, H, L, P, 2).
        attention_logits: (B, Q, H, L, P).
        spatial_shapes: (height, width) of each of the L levels, in tokens.

    Returns:
        Locations (B, Q, H, L, P, 2), weights (B, Q, H, L, P).

    Source: Deformable DETR, appendix A.3 and A.4; released code for boxes.
    """
    weights = attention_logits.flatten(-2).softmax(-1).view(attention_logits.shape)
    reference = reference_points[:, :, None, :, None]
    if reference.shape[-1] == 2:
        # A level without cells is never read; one cell keeps its gradients numbers.
        cells = [(max(w, 1), max(h, 1)) for h, w in spatial_shapes]
        return reference + sampling_offsets / sampling_offsets.new_tensor(cells)[:, None], weights
    points = sampling_offsets.shape[-2]
    centre, size = reference[..., :2], reference[..., 2:]
    # Masked before the product: a gradient of zero times infinity is NaN.
    finite = size.isfinite() & sampling_offsets.isfinite()
    step = torch.where(finite, sampling_offsets, 0.0) / points * torch.where(finite, size, 0.0)
    return torch.where(finite, centre + step * 0.5, float("nan")), weights


def without_padding(
    value: Tensor, spatial_shapes: Sequence[tuple[int, int]], valid_sizes: Tensor | None
) -> Tensor:
    """Gives the values with zeros in the cells that do not belong to the image.

    Args:
        value: (B, N, ...).
        spatial_shapes: (height, width) of each of the L levels.
        valid_sizes: (B, L, 2) rows and columns that do belong to it; None gives `value` back.
    """
    if valid_sizes is None:
        return value
    outside = []
    for level, (height, width) in enumerate(spatial_shapes):
        rows, columns = valid_sizes[:, level, 0], valid_sizes[:, level, 1]
        y = torch.arange(height, device=value.device)[None, :, None]
        x = torch.arange(width, device=value.device)[None, None, :]
        padding = (y >= rows[:, None, None]) | (x >= columns[:, None, None])
        outside.append(padding.flatten(1))
    mask = torch.cat(outside, dim=1)
    return value.masked_fill(mask.view(*mask.shape, *(1,) * (value.dim() - 2)), 0)


def _attend_level(level_map: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Gives the contribution of one level.

    Args:
        level_map: (B * H, D, height, width).
        locations: (B, Q, H, P, 2), normalised (x, y).
        weights: (B, Q, H, P).

    Returns:
        (B * H, D, Q).
    """
    height, width = level_map.shape[-2:]
    x = locations[..., 0] * width - 0.5
    y = locations[..., 1] * height - 0.5
    inside = (x > -1) & (x < width) & (y > -1) & (y < height)
    # Masked before any arithmetic that could give NaN: NaN times a zero gradient is still NaN.
    grid = torch.where(inside.unsqueeze(-1), locations, (_OUTSIDE + 1) / 2) * 2 - 1
    weights = torch.where(inside, weights, 0.0)
    sampled = F.grid_sample(
        level_map,
        grid.transpose(1, 2).flatten(0, 1),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return (sampled * weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)).sum(-1)


def _zeros(value: Tensor, sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    """Gives a zero output that autograd connects to all three inputs, whatever they hold."""
    shape = (value.shape[0], sampling_locations.shape[1], value.shape[2] * value.shape[3])
    connection = value[:0].sum() + sampling_locations[:0].sum() + attention_weights[:0].sum()
    return value.new_zeros(shape) + connection
