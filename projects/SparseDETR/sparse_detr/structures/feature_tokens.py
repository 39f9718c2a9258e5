"""The tokens of a batch: all cells of all levels in one sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .feature_maps import Size


@dataclass(frozen=True)
class FeatureTokens:
    """All cells of all levels, level 0 first, row by row within a level.

    Attributes:
        features: (B, N, C) projected features without position.
        position: (B, N, C) sine position plus level embedding.
        padding_mask: (B, N) bool, True on padding.
        spatial_shapes: L pairs (H_l, W_l).
        valid_sizes: (B, L, 2) rows and columns that the image covers, on the features' device, in
            float32 or more.
        valid_counts: B numbers of tokens that are not padding, on the host.
    """

    features: Tensor
    position: Tensor
    padding_mask: Tensor
    spatial_shapes: tuple[Size, ...]
    valid_sizes: Tensor
    valid_counts: tuple[int, ...]

    @property
    def value_mask(self) -> Tensor | None:
        """Padding mask of the values of an attention, or None where no token is padding."""
        full = self.padding_mask.shape[1]
        return None if all(count == full for count in self.valid_counts) else self.padding_mask

    @property
    def level_start_index(self) -> tuple[int, ...]:
        """Index of the first token of each level."""
        starts = [0]
        for height, width in self.spatial_shapes[:-1]:
            starts.append(starts[-1] + height * width)
        return tuple(starts)

    @property
    def valid_ratios(self) -> Tensor:
        """(B, L, 2) share of each level that the image covers, order (x, y)."""
        shapes = self.valid_sizes.new_tensor(self.spatial_shapes)
        return (self.valid_sizes / shapes).flip(-1)

    def cell_centres(self) -> tuple[Tensor, Tensor]:
        """Centres of all cells in units of cells, and the level of each.

        Returns:
            centres (N, 2), order (x, y), first cell at 0.5; levels (N,) int64.
        """
        like = self.valid_sizes
        centres, levels = [], []
        for level, (height, width) in enumerate(self.spatial_shapes):
            y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
            x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
            grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
            centres.append(torch.stack([grid_x.reshape(-1), grid_y.reshape(-1)], dim=-1))
            levels.append(torch.full((height * width,), level, device=like.device))
        return torch.cat(centres), torch.cat(levels)

    def reference_points(self) -> Tensor:
        """Centre of each token on each level, for the encoder's deformable attention.

        Returns:
            (B, N, L, 2), order (x, y), normalised to the padded map of the target level.

        Source: Deformable DETR, appendix A.4; released code: a centre is normalised by the valid
            extent of its own level and scaled by the valid ratio of the target level.
        """
        centres, levels = self.cell_centres()
        extent = self.valid_sizes.flip(-1)[:, levels]  # (B, N, 2)
        return (centres / extent)[:, :, None] * self.valid_ratios[:, None]
