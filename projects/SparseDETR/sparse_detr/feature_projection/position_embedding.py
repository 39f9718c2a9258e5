"""Positions of the tokens: sine encoding of the cell plus a learned embedding of the level.

Role in the flow: feature projection -> **position embedding** -> FeatureTokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers.precision import at_least_float32
from ..layers.sine_encoding import sine_features
from ..structures import FeatureMaps, FeatureTokens, Size


class PositionEmbedding(nn.Module):
    """Flattens feature maps to tokens and gives each token its position.

    Args:
        hidden_dim: Channels C, divisible by 4.
        num_levels: Levels L.
        encode_padding: False gives padded tokens position zero. True is the released behaviour:
            a padded row or column divides by almost nothing and gets a meaningless phase on which
            float32 and float64 disagree.

    Source: DETR, appendix A.4 (sine encoding); Deformable DETR, section 4.1 (level embedding).
    """

    def __init__(self, hidden_dim: int, num_levels: int, encode_padding: bool = False) -> None:
        super().__init__()
        if hidden_dim % 4:
            raise ValueError(f"hidden_dim must be divisible by 4, got {hidden_dim}")
        self.hidden_dim = hidden_dim
        self.encode_padding = encode_padding
        self.level_embed = nn.Parameter(torch.empty(num_levels, hidden_dim))
        nn.init.normal_(self.level_embed)

    def forward(self, feature_maps: FeatureMaps) -> FeatureTokens:
        """The tokens of a batch.

        Args:
            feature_maps: L levels; see :class:`FeatureMaps`.
        """
        maps = feature_maps.maps
        shapes = feature_maps.spatial_shapes
        if len(maps) != len(self.level_embed):
            raise ValueError(
                f"feature_maps must have num_levels={len(self.level_embed)} levels, got {len(maps)}"
            )
        position, masks = [], []
        for level, shape in enumerate(shapes):
            valid = [image[level] for image in feature_maps.valid_sizes]
            mask = padding_mask(shape, valid, maps[level].device)
            sine = self._sine(mask, maps[level].dtype)
            sine = sine.flatten(1, 2).to(self.level_embed.dtype)
            position.append(sine + self.level_embed[level])
            masks.append(mask.flatten(1))
        features = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        counts = tuple(sum(h * w for h, w in image) for image in feature_maps.valid_sizes)
        sizes = torch.tensor(feature_maps.valid_sizes, device=features.device)
        return FeatureTokens(
            features=features,
            position=torch.cat(position, dim=1),
            padding_mask=torch.cat(masks, dim=1),
            spatial_shapes=shapes,
            valid_sizes=sizes.to(at_least_float32(self.level_embed.dtype)),
            valid_counts=counts,
        )

    def _sine(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, H, W, C) encoding: C/2 features of y, then C/2 of x; mask True on padding."""
        valid = (~mask).to(at_least_float32(dtype))
        y, x = valid.cumsum(1), valid.cumsum(2)
        y = (y - 0.5) / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
        x = (x - 0.5) / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
        half = self.hidden_dim // 2
        sine = torch.cat([sine_features(y, half), sine_features(x, half)], dim=-1)
        return sine if self.encode_padding else sine.masked_fill(mask[..., None], 0)


def padding_mask(shape: Size, valid: Sequence[Size], device: torch.device) -> Tensor:
    """(B, H, W) bool, True outside each image's rectangle at the top-left.

    Args:
        shape: (H, W) of the level.
        valid: B pairs (rows, columns) that the images cover.
        device: Where the mask is made.
    """
    rows = torch.tensor([v[0] for v in valid], device=device)[:, None, None]
    columns = torch.tensor([v[1] for v in valid], device=device)[:, None, None]
    y = torch.arange(shape[0], device=device)[None, :, None]
    x = torch.arange(shape[1], device=device)[None, None, :]
    return (y >= rows) | (x >= columns)
