"""Counts as exact polynomials of the sizes of the maps, found from small images.

Every multiply-add of a detector belongs to a cell of some map, to a row or column of one, to a
token that the encoder keeps, to a query, or to a pair of tokens or queries: a count is a sum of
such numbers with fixed factors. The factors follow exactly from the counts of some small images;
more images than factors are taken, so a detector whose counts are no such sum is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

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
        widest_window_stride: Stride of the coarsest map that is cut into windows, pixels; 0 where
            all are.
    """

    strides: tuple[int, ...]
    levels: int
    windows: tuple[int, ...] = ()
    rounded_down: bool = False
    widest_window_stride: int = 0

    @property
    def periods(self) -> list[int]:
        """Pixels that one cell, or one window, of each map covers."""
        of_windows = [s * w for s in self.strides for w in self.windows if self._is_cut(s)]
        return [*self.strides, *of_windows]

    def _is_cut(self, stride: int) -> bool:
        return not self.widest_window_stride or stride <= self.widest_window_stride

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
            for window in self.windows if self._is_cut(stride) else ():
                rows, columns = (-(-side // (stride * window)) for side in image_size)
                numbers.append(rows * columns)
        return numbers


class RowSpace:
    """Which rows of numbers are sums of multiples of others.

    Args:
        width: Numbers F of a row.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._rows: dict[int, list[Fraction]] = {}

    @property
    def is_full(self) -> bool:
        """Whether every row is a sum of multiples of those that were added."""
        return len(self._rows) == self._width

    def add(self, row: Sequence[int | Fraction]) -> bool:
        """Adds a row and gives whether it is no sum of multiples of the earlier ones.

        Args:
            row: (F,) numbers.
        """
        rest = [Fraction(number) for number in row]
        for column in range(self._width):
            if not rest[column]:
                continue
            known = self._rows.get(column)
            if known is None:
                scale = rest[column]
                self._rows[column] = [number / scale for number in rest]
                return True
            scale = rest[column]
            rest = [a - scale * b for a, b in zip(rest, known, strict=True)]
        return False


@dataclass(frozen=True)
class ExactSum:
    """A sum of numbers with fixed factors, which gives whole numbers.

    Attributes:
        numerators: (F,) of the factors.
        denominator: Of all factors.
    """

    numerators: tuple[int, ...]
    denominator: int

    @classmethod
    def of(cls, factors: Sequence[Fraction]) -> ExactSum:
        """The sum with given factors."""
        denominator = lcm(*(factor.denominator for factor in factors))
        return cls(tuple(int(factor * denominator) for factor in factors), denominator)

    def __call__(self, numbers: Sequence[int | Fraction]) -> int:
        """Gives the sum.

        Args:
            numbers: (F,) numbers.

        Raises:
            ValueError: It is no whole number: the factors do not hold for these numbers.
        """
        total = sum(f * n for f, n in zip(self.numerators, numbers, strict=True) if f)
        whole, rest = divmod(total, self.denominator)
        if rest:
            raise ValueError("the count is no whole number; count this image with count_flops")
        return int(whole)


def solve_exactly(
    rows: Sequence[Sequence[int | Fraction]], values: Sequence[Sequence[int]]
) -> list[ExactSum] | None:
    """Gives the factors x with ``rows @ x == values``, exactly.

    Args:
        rows: (M, F) numbers of M images, M > F.
        values: (M, V) what V polynomials gave for them.

    Returns:
        V sums; None where no factors fit all rows, or more than one.
    """
    table = [
        [Fraction(number) for number in (*row, *value)]
        for row, value in zip(rows, values, strict=True)
    ]
    count = len(rows[0])
    for column in range(count):
        pivot = next((r for r in range(column, len(table)) if table[r][column]), None)
        if pivot is None:
            return None
        table[column], table[pivot] = table[pivot], table[column]
        _eliminate(table, column)
    if any(any(row[count:]) for row in table[count:]):
        return None
    return [
        ExactSum.of([row[count + index] for row in table[:count]])
        for index in range(len(values[0]))
    ]


def _eliminate(table: list[list[Fraction]], column: int) -> None:
    """Makes the row of a column one there, and all other rows zero."""
    factor = 1 / table[column][column]
    table[column] = [value * factor for value in table[column]]
    for index, row in enumerate(table):
        if index != column and row[column]:
            scale = row[column]
            table[index] = [a - scale * b for a, b in zip(row, table[column], strict=True)]
