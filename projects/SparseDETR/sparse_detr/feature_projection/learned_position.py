"""Learned positions of the tokens: one table for rows, one for columns.

Role in the flow: feature projection -> **position embedding** -> FeatureTokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..structures import FeatureMaps, PositionTables, ShapeCache, TokenGeometry, is_plain
from .position_embedding import PositionEmbedding


class LearnedPositionEmbedding(PositionEmbedding):
    """Gives each token the learned encodings of its column and of its row, in this order.

    Args:
        hidden_dim: Channels C, divisible by 4.
        num_levels: Levels L; all of them read the same tables.
        num_cells: Rows and columns that the tables hold. DETR's 50 are too few for its dilated
            backbone.
        level_embedding: See :class:`PositionEmbedding`.

    Source: DETR, released code (``--position_embedding learned``).
    """

    def __init__(
        self,
        hidden_dim: int,
        num_levels: int,
        num_cells: int = 50,
        level_embedding: bool = False,
    ) -> None:
        super().__init__(hidden_dim, num_levels, level_embedding=level_embedding)
        self.row_embed = nn.Embedding(num_cells, hidden_dim // 2)
        self.col_embed = nn.Embedding(num_cells, hidden_dim // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)
        self._geometries: ShapeCache[TokenGeometry] = ShapeCache()

    def _constants_of(self, feature_maps: FeatureMaps) -> tuple[TokenGeometry, PositionTables]:
        geometry = self._geometry_of(feature_maps)
        longest = max(length for shape in geometry.spatial_shapes for length in shape)
        if longest > self.row_embed.num_embeddings:
            raise ValueError(
                f"feature_maps must have at most num_cells={self.row_embed.num_embeddings} rows "
                f"and columns for learned positions, got {longest}; make the images smaller, "
                "num_cells larger, or take sine positions"
            )
        if is_plain(feature_maps.maps[0]):
            sizes = (geometry.spatial_shapes, geometry.covered)
            key = (*sizes, geometry.device, geometry.dtype)
            fresh = geometry
            geometry = self._geometries.get(key, lambda: fresh)
        return geometry, self._tables(geometry)

    def _tables(self, geometry: TokenGeometry) -> PositionTables:
        rows, columns, levels = geometry.cells
        tables, starts = [], []
        for axis, table in enumerate((self.row_embed.weight, self.col_embed.weight)):
            lengths = [shape[axis] for shape in geometry.spatial_shapes]
            # What stands on padding means nothing to anybody: its row and column serve as well.
            parts = [table[:length] for length in [*lengths, 1]]
            tables.append(torch.cat(parts)[None])
            first = torch.tensor([sum(lengths[:level]) for level in range(len(lengths))])
            starts.append(first.to(geometry.device)[levels])
        index: list[Tensor] = [(rows + starts[0])[None], (columns + starts[1])[None]]
        return PositionTables(tables[0], tables[1], index[0], index[1], levels, columns_first=True)
