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
from ..structures import (
    FeatureMaps,
    FeatureTokens,
    ShapeCache,
    SineTables,
    TokenGeometry,
    TokenPositions,
    is_plain,
)


class PositionEmbedding(nn.Module):
    """Flattens feature maps to tokens and gives each token its position.

    What depends on nothing but sizes is computed once per shape and kept for the last few shapes.

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
        self._constants: ShapeCache[tuple[TokenGeometry, SineTables]] = ShapeCache()

    def forward(self, feature_maps: FeatureMaps) -> FeatureTokens:
        """The tokens of a batch.

        Args:
            feature_maps: L levels; see :class:`FeatureMaps`.
        """
        maps = feature_maps.maps
        if len(maps) != len(self.level_embed):
            raise ValueError(
                f"feature_maps must have num_levels={len(self.level_embed)} levels, got {len(maps)}"
            )
        features = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        geometry, tables = self._constants_of(feature_maps)
        positions = TokenPositions(tables, self.level_embed, geometry.spatial_shapes)
        return FeatureTokens(features, positions, geometry)

    def _constants_of(self, feature_maps: FeatureMaps) -> tuple[TokenGeometry, SineTables]:
        like = feature_maps.maps[0]
        geometry = TokenGeometry(
            feature_maps.spatial_shapes,
            feature_maps.valid_sizes,
            like.device,
            at_least_float32(self.level_embed.dtype),
        )
        if not is_plain(like):
            return geometry, self._tables(geometry)
        sizes = (geometry.spatial_shapes, geometry.covered)
        key = (*sizes, geometry.device, geometry.dtype, self.encode_padding)
        return self._constants.get(key, lambda: (geometry, self._tables(geometry)))

    def _tables(self, geometry: TokenGeometry) -> SineTables:
        rows, columns, levels = geometry.cells
        shapes, distinct = geometry.spatial_shapes, geometry.distinct
        tables, starts = [], []
        for axis in (0, 1):
            lengths = [shape[axis] for shape in shapes]
            covered = [[image[level][axis] for level in range(len(shapes))] for image in distinct]
            tables.append(self._table(lengths, covered, geometry))
            first = torch.tensor([sum(lengths[:level]) for level in range(len(lengths))])
            starts.append(first.to(geometry.device)[levels])
        row_index, column_index = (rows + starts[0])[None], (columns + starts[1])[None]
        if geometry.is_padded:
            mask = geometry.padding_mask[: len(distinct)]
            outside_rows = outside_columns = mask
            if self.encode_padding:
                limits = geometry.valid_sizes[: len(distinct)][:, levels]
                # Counting along a padded column finds no row, and the other way round.
                outside_rows, outside_columns = columns >= limits[..., 1], rows >= limits[..., 0]
            row_index = torch.where(outside_rows, tables[0].shape[1] - 1, row_index)
            column_index = torch.where(outside_columns, tables[1].shape[1] - 1, column_index)
        return SineTables(tables[0], tables[1], row_index, column_index, levels)

    def _table(
        self, lengths: Sequence[int], covered: Sequence[Sequence[int]], geometry: TokenGeometry
    ) -> Tensor:
        """(B, sum of lengths + 1, C/2) encodings of one axis; the last one is that of padding.

        Args:
            lengths: Cells of each level along the axis.
            covered: For each image, how many of them it covers.
            geometry: Gives device and type.
        """
        dtype, device = geometry.dtype, geometry.device
        limits = torch.tensor(covered, dtype=dtype, device=device)[..., None]
        phases = []
        for level, length in enumerate(lengths):
            cell = torch.arange(1, length + 1, dtype=dtype, device=device)
            cell = cell.minimum(limits[:, level])
            phases.append((cell - 0.5) / (limits[:, level] + 1e-6))
        phases.append(limits.new_tensor(-0.5).div(1e-6).expand(len(covered), 1))
        table = sine_features(torch.cat(phases, dim=1) * (2 * math.pi), self.hidden_dim // 2)
        if not self.encode_padding:
            table[:, -1] = 0
        return table
