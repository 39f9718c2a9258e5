"""Counts as exact polynomials of the sizes of the maps, found from small images.

Every multiply-add of a detector belongs to a cell of some map, to a row or column of one, to a
token that the encoder keeps, or to a pair of tokens: a count is a sum of such numbers with fixed
factors. The factors follow exactly from the counts of some small images; more images than factors
are taken, so a detector whose counts are no such sum is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..structures import Size


@dataclass(frozen=True)
class MapSizes:
    """Which maps a detector has, as far as their sizes decide what it computes.

    Attributes:
        strides: Strides of maps, pixels, ascending.
        levels: How many of the last of them are the levels of the tokens, whose rows and columns
            have a cost of their own (their positions).
        windows: Sides of attention windows that maps are padded to, cells.
        rounded_down: Also take the cells that fit in whole; for a backbone whose maps are not as
            large as the image over the stride, rounded up.
    """

    strides: tuple[int, ...]
    levels: int
    windows: tuple[int, ...] = ()
    rounded_down: bool = False

    def numbers(self, image_size: Size) -> list[int]:
        """The numbers of one image that a count is a sum of.

        Args:
            image_size: (height, width), pixels.
        """
        numbers = [1]
        for stride in self.strides:
            rows, columns = (-(-side // stride) for side in image_size)
            numbers.append(rows * columns)
            if self.rounded_down or stride in self.strides[-self.levels :]:
                numbers.append(rows + columns)
            if self.rounded_down:
                rows, columns = (side // stride for side in image_size)
                numbers += [rows * columns, rows + columns]
            for window in self.windows:
                rows, columns = (-(-side // (stride * window)) for side in image_size)
                numbers.append(rows * columns)
        return numbers


def solve_exactly(
    rows: Sequence[Sequence[int | Fraction]], values: Sequence[Sequence[int]]
) -> list[list[Fraction]] | None:
    """Gives the factors x with ``rows @ x == values``, exactly.

    Args:
        rows: (M, F) numbers of M images, M > F.
        values: (M, V) what V polynomials gave for them.

    Returns:
        (V, F) factors, zero where the rows leave one open; None where no factors fit all rows.
    """
    table = [
        [Fraction(number) for number in (*row, *value)]
        for row, value in zip(rows, values, strict=True)
    ]
    count = len(rows[0])
    pivots: list[int] = []
    for column in range(count):
        done = len(pivots)
        pivot = next((r for r in range(done, len(table)) if table[r][column]), None)
        if pivot is None:
            continue
        table[done], table[pivot] = table[pivot], table[done]
        _eliminate(table, done, column)
        pivots.append(column)
    if any(any(row[count:]) for row in table[len(pivots) :]):
        return None
    factors = [[Fraction(0)] * count for _ in values[0]]
    for row, column in zip(table, pivots, strict=False):
        for polynomial, value in zip(factors, row[count:], strict=True):
            polynomial[column] = value
    return factors


def _eliminate(table: list[list[Fraction]], pivot: int, column: int) -> None:
    """Makes the pivot's row one in its column, and all other rows zero there."""
    factor = 1 / table[pivot][column]
    table[pivot] = [value * factor for value in table[pivot]]
    for index, row in enumerate(table):
        if index != pivot and row[column]:
            scale = row[column]
            table[index] = [a - scale * b for a, b in zip(row, table[pivot], strict=True)]
