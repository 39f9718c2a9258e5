"""Positions of the tokens: encoding of the cell plus a learned embedding of the level.

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
    PositionTables,
    ShapeCache,
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
        temperature: Of the sine encoding; DINO's longer schedules take 20.
        offset: Of a cell's centre from its number, which counts from 1; -0.5, or 0 in DETR and in
            DINO's longer schedules. Weights only work with what they were trained with.
        padding_in_evaluation: True is the released behaviour of DINO: padded tokens count as the
            image's own in evaluation, with which only batches of one image make sense.
        level_embedding: Learn an embedding of each level. False has none, as DETR.

    Source: DETR, appendix A.4 (sine encoding); Deformable DETR, section 4.1 (level embedding).
    """

    level_embed: Tensor

    def __init__(
        self,
        hidden_dim: int,
        num_levels: int,
        encode_padding: bool = False,
        temperature: float = 10000.0,
        offset: float = -0.5,
        padding_in_evaluation: bool = False,
        level_embedding: bool = True,
    ) -> None:
        super().__init__()
        if hidden_dim % 4:
            raise ValueError(f"hidden_dim must be divisible by 4, got {hidden_dim}")
        self.hidden_dim = hidden_dim
        self.encode_padding = encode_padding
        self.temperature = temperature
        self.offset = offset
        self.padding_in_evaluation = padding_in_evaluation
        if level_embedding:
            self.level_embed = nn.Parameter(torch.empty(num_levels, hidden_dim))
            nn.init.normal_(self.level_embed)
        else:
            # Zeros, so that nobody has to ask whether there is one.
            zeros = torch.zeros(num_levels, hidden_dim)
            self.register_buffer("level_embed", zeros, persistent=False)
        self._constants: ShapeCache[tuple[TokenGeometry, PositionTables]] = ShapeCache()

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
        return FeatureTokens(
            features, positions, geometry, feature_maps.image_sizes, feature_maps.strides
        )

    def _geometry_of(self, feature_maps: FeatureMaps) -> TokenGeometry:
        valid = feature_maps.valid_sizes
        if self.padding_in_evaluation and not self.training:
            valid = (feature_maps.spatial_shapes,) * len(valid)
        return TokenGeometry(
            feature_maps.spatial_shapes,
            valid,
            feature_maps.maps[0].device,
            at_least_float32(self.level_embed.dtype),
        )

    def _constants_of(self, feature_maps: FeatureMaps) -> tuple[TokenGeometry, PositionTables]:
        geometry = self._geometry_of(feature_maps)
        if not is_plain(feature_maps.maps[0]):
            return geometry, self._tables(geometry)
        sizes = (geometry.spatial_shapes, geometry.covered)
        key = (*sizes, geometry.device, geometry.dtype, self.encode_padding)
        return self._constants.get(key, lambda: (geometry, self._tables(geometry)))

    def _tables(self, geometry: TokenGeometry) -> PositionTables:
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
        return PositionTables(tables[0], tables[1], row_index, column_index, levels)

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
            phases.append((cell + self.offset) / (limits[:, level] + 1e-6))
        phases.append(limits.new_tensor(self.offset).div(1e-6).expand(len(covered), 1))
        angles = torch.cat(phases, dim=1) * (2 * math.pi)
        table = sine_features(angles, self.hidden_dim // 2, self.temperature)
        if not self.encode_padding:
            table[:, -1] = 0
        return table
