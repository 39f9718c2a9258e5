"""Factors of counts that are sums over map sizes: found exactly where there are any."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from sparse_detr.analysis.map_size_polynomial import ExactSum, MapSizes, RowSpace, solve_exactly

MAPS = MapSizes(strides=(2, 4, 8, 16), levels=2, windows=(7,))


def images(count: int) -> list[tuple[int, int]]:
    draw = random.Random(3)
    return [(draw.randrange(60, 300), draw.randrange(60, 300)) for _ in range(count)]


def test_the_numbers_of_an_image_are_those_of_its_maps() -> None:
    maps = MapSizes(strides=(2, 4), levels=1, windows=(3,))
    # 5x7 at stride 2, 3x4 at stride 4; windows of 3x3 cells: 2x3 and 1x2.
    assert maps.numbers((10, 13)) == [1, 35, 6, 12, 7, 2]


def test_whole_cells_count_beside_begun_ones() -> None:
    maps = MapSizes(strides=(4,), levels=0, rounded_down=True)
    assert maps.numbers((10, 13)) == [1, 12, 7, 6, 5]


def test_large_factors_are_found_to_the_last_digit() -> None:
    factors = [7, 10**12 + 1, 3, 10**9 + 7, 5, 123456789, 11, 0, 2, 1, 4]
    count = len(MAPS.numbers((64, 64)))
    factors = (factors * 2)[:count]
    rows = [MAPS.numbers(size) for size in images(count + 3)]
    values = [[sum(f * n for f, n in zip(factors, row, strict=True))] for row in rows]
    (found,) = solve_exactly(rows, values) or ()
    assert found == ExactSum(tuple(factors), 1)
    assert found(rows[0]) == values[0][0]


def test_one_unit_off_in_one_image_is_noticed() -> None:
    count = len(MAPS.numbers((64, 64)))
    rows = [MAPS.numbers(size) for size in images(count + 3)]
    values = [[sum(row)] for row in rows]
    values[4][0] += 1
    assert solve_exactly(rows, values) is None


def test_a_number_that_never_differs_leaves_more_than_one_answer_and_none_is_given() -> None:
    rows = [[1, 2, n] for n in (3, 5, 9, 4)]
    assert solve_exactly(rows, [[10 + 2 * n] for *_, n in rows]) is None


def test_factors_that_are_no_whole_numbers_give_whole_counts_or_an_error() -> None:
    half = ExactSum.of([Fraction(1, 2), Fraction(1, 3)])
    assert (half([2, 3]), half([Fraction(3, 2), Fraction(3, 4)])) == (2, 1)
    with pytest.raises(ValueError, match="no whole number"):
        half([1, 3])


def test_a_row_adds_to_the_space_where_it_is_no_sum_of_earlier_ones() -> None:
    space = RowSpace(3)
    rows = [[1, 2, 3], [2, 4, 6], [0, 1, 1], [1, 3, 4], [5, 0, 0], [7, 8, 9]]
    assert [space.add(row) for row in rows] == [True, False, True, False, True, False]
    assert space.is_full


def test_windows_are_those_of_the_maps_that_are_cut_into_some() -> None:
    maps = MapSizes(strides=(4, 8), levels=1, windows=(7,), widest_window_stride=4)
    assert maps.numbers((60, 56)) == [1, 15 * 14, 3 * 2, 8 * 7, 8 + 7]
    assert maps.periods == [4, 8, 28]
