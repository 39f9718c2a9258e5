"""The decoder cross-attention map (DAM): how much the decoder looked at each token.

Role in the flow: read from the decoder's sampling by the criterion (target of the scoring
network), by evaluation (Corr) and by pictures. Nothing here carries a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .query_selection.encoder_proposals import top_tokens
from .structures import KeptTokens, Sampling, Size


@torch.no_grad()
def decoder_attention_map(
    sampling: Sequence[Sampling],
    spatial_shapes: Sequence[Size],
    half_cell_shift: bool = True,
) -> Tensor:
    """Attention weight that each token received, over layers, heads, queries and points.

    Each weight is spread bilinearly over the four cells around its location; what falls outside
    the map is dropped.

    Args:
        sampling: Sampling of the cross-attention of each decoder layer.
        spatial_shapes: L pairs (H_l, W_l).
        half_cell_shift: True is the released behaviour, on which the released weights rest: the
            coordinate is ``location * size``, half a cell to the lower right of where the
            attention reads. False spreads to the cells that were read.

    Returns:
        (B, N).

    Source: Sparse DETR, section 3.2 and appendix A.3.
    """
    batch = sampling[0].locations.shape[0]
    num_tokens = sum(h * w for h, w in spatial_shapes)
    total = sampling[0].weights.new_zeros(batch, num_tokens)
    for layer in sampling:
        start = 0
        for level, (height, width) in enumerate(spatial_shapes):
            locations = layer.locations[:, :, :, level].reshape(batch, -1, 2)
            weights = layer.weights[:, :, :, level].reshape(batch, -1)
            shift = 0.0 if half_cell_shift else 0.5
            u = locations * locations.new_tensor([width, height]) - shift
            low = u.floor()
            fraction = u - low
            for corner_x in (0, 1):
                for corner_y in (0, 1):
                    x, y = low[..., 0] + corner_x, low[..., 1] + corner_y
                    share_x = fraction[..., 0] if corner_x else 1 - fraction[..., 0]
                    share_y = fraction[..., 1] if corner_y else 1 - fraction[..., 1]
                    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
                    share = torch.where(inside, weights * share_x * share_y, 0)
                    cell = torch.where(inside, y * width + x, 0).long() + start
                    total.scatter_add_(1, cell, share.to(total.dtype))
            start += height * width
    return total


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
    hit = attention_map * selected
    if spatial_shapes is None:
        return hit.sum(1) / attention_map.sum(1)
    lengths = [h * w for h, w in spatial_shapes]
    parts = zip(torch.split(hit, lengths, 1), torch.split(attention_map, lengths, 1), strict=True)
    return torch.stack([a.sum(1) / b.sum(1) for a, b in parts])
