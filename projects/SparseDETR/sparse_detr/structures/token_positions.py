"""Positions of the tokens, held as one encoding per row and one per column of each level.

A position is made of an encoding of the row in one half of the channels and one of the column in
the other, so a few hundred rows say what (N, C) numbers would: only the positions that somebody
needs are ever written out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .feature_maps import Size
from .row_access import gather_rows


@dataclass(frozen=True, eq=False)
class PositionTables:
    """Encodings of rows and columns; where they are not learned, constants of a shape.

    Attributes:
        rows: (B or 1, sum of H_l + 1, C/2) of every row of every level, finest first; the last one
            belongs to padding.
        columns: (B or 1, sum of W_l + 1, C/2), in the same way.
        row_index: (B or 1, N) int64, which of ``rows`` a token has.
        column_index: (B or 1, N) int64.
        levels: (N,) int64.
        columns_first: Whether the column's half of the channels comes first.
    """

    rows: Tensor
    columns: Tensor
    row_index: Tensor
    column_index: Tensor
    levels: Tensor
    columns_first: bool = False

    def encoding(self, indices: Tensor | None) -> Tensor:
        """(B, K, C) encodings of tokens (B, K), or (B or 1, N, C) of all of them."""
        halves = []
        for table, index in ((self.rows, self.row_index), (self.columns, self.column_index)):
            if indices is not None:
                batch = len(indices)
                table = table.expand(batch, -1, -1)
                index = gather_rows(index.expand(batch, -1), indices)
            halves.append(gather_rows(table, index))
        return torch.cat(halves[::-1] if self.columns_first else halves, dim=-1)


@dataclass(frozen=True, eq=False)
class TokenPositions:
    """Encoding of the cell plus embedding of the level.

    Attributes:
        tables: Encodings of rows and columns.
        level_embed: (L, C); zeros where levels have none.
        spatial_shapes: L pairs (H_l, W_l).
    """

    tables: PositionTables
    level_embed: Tensor
    spatial_shapes: tuple[Size, ...]

    def everywhere(self) -> Tensor:
        """(B or 1, N, C) positions of all tokens."""
        sizes = [height * width for height, width in self.spatial_shapes]
        levels = zip(self.level_embed, sizes, strict=True)
        # One sum per level in the backward pass; a gather would add up token by token.
        embedding = torch.cat([level.expand(size, -1) for level, size in levels])
        return self.tables.encoding(None).to(embedding.dtype) + embedding

    def of(self, indices: Tensor) -> Tensor:
        """(B, K, C) positions of tokens (B, K)."""
        encoding = self.tables.encoding(indices).to(self.level_embed.dtype)
        return encoding + F.embedding(self.tables.levels[indices], self.level_embed)

    def projected(self, weight: Tensor) -> list[Tensor]:
        """A linear map of the positions, for the price of the rows and columns.

        Args:
            weight: (D, C).

        Returns:
            For each level (B or 1, H_l, W_l, D). What stands on padding means nothing.
        """
        of_rows, of_columns = self._halves(weight)
        level_rows, level_columns = self._halves(self.level_embed)
        rows = F.linear(self.tables.rows.to(weight.dtype), of_rows)
        columns = F.linear(self.tables.columns.to(weight.dtype), of_columns)
        levels = F.linear(level_rows, of_rows) + F.linear(level_columns, of_columns)
        by_level = zip(
            rows.split_with_sizes([h for h, _ in self.spatial_shapes] + [1], dim=1),
            columns.split_with_sizes([w for _, w in self.spatial_shapes] + [1], dim=1),
            levels,
            strict=False,  # the last row and column belong to padding
        )
        return [r[:, :, None] + (c + level)[:, None] for r, c, level in by_level]

    def _halves(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C/2) each: the channels of the row and those of the column."""
        first, second = values.chunk(2, dim=-1)
        return (second, first) if self.tables.columns_first else (first, second)
