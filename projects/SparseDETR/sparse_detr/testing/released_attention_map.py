"""The decoder cross-attention map as the released code forms it: one map per layer and head.

A yardstick for benchmarks and tests. The detector uses :mod:`sparse_detr.decoder_attention_map`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..structures import Sampling, Size


@torch.no_grad()
def released_attention_map(sampling: Sequence[Sampling], spatial_shapes: Sequence[Size]) -> Tensor:
    """Attention weight that each token received, summed over separate maps at the end.

    Every sample of every level is held at once, with its four corners as int64 positions and
    masks; each corner is one scatter into the (B * layers * H, N) maps.

    Args:
        sampling: Sampling of the cross-attention of each decoder layer, finite.
        spatial_shapes: L pairs (H_l, W_l).

    Returns:
        (B, N), with the released shift of half a cell.

    Source: released code of Sparse DETR, function for the decoder cross-attention map.
    """
    locations = torch.stack([s.locations for s in sampling], dim=1)
    weights = torch.stack([s.weights for s in sampling], dim=1)
    batch, layers, _, heads, levels, _ = weights.shape
    sizes = torch.tensor([(w, h) for h, w in spatial_shapes], device=weights.device)
    cells = sizes.prod(dim=-1)
    starts = cells.cumsum(0) - cells
    # (B * layers * H, Q * P, L), so that a level is a column.
    weights = weights.permute(0, 1, 3, 2, 5, 4).reshape(batch * layers * heads, -1, levels)
    locations = locations.permute(0, 1, 3, 2, 5, 4, 6).reshape(*weights.shape, 2)
    position = locations * sizes
    corner = position.floor().long()
    fraction = position - corner
    maps = weights.new_zeros(len(weights), sum(h * w for h, w in spatial_shapes))
    for right in (0, 1):
        for below in (0, 1):
            cell = corner + corner.new_tensor([right, below])
            share_x = fraction[..., 0] if right else 1 - fraction[..., 0]
            share_y = fraction[..., 1] if below else 1 - fraction[..., 1]
            inside = ((cell >= 0) & (cell < sizes)).all(dim=-1)
            token = (cell[..., 1] * sizes[:, 0] + cell[..., 0] + starts) * inside
            share = weights * inside * (share_x * share_y)
            maps.scatter_add_(1, token.flatten(1), share.flatten(1))
    return maps.view(batch, layers * heads, -1).sum(dim=1)
