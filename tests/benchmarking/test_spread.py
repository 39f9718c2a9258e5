from __future__ import annotations

import pytest

from sparse_detr.benchmarking.spread import Spread, pairwise_ratios


def test_a_spread_has_the_middle_and_the_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0, 2.5]) == Spread(2.5, 1.0, 10.0, 5)


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one measurement"):
        Spread.of([])


def test_a_scaled_spread_keeps_its_count() -> None:
    assert Spread(2.0, 1.0, 4.0, 3).scaled(1000) == Spread(2000, 1000, 4000, 3)


def test_ratios_are_taken_round_by_round() -> None:
    # The machine slowed down by ten in the second round: each round's ratio is still two.
    assert pairwise_ratios([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == Spread(2.0, 2.0, 2.0, 3)


def test_ratios_of_different_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="same rounds"):
        pairwise_ratios([1.0, 2.0], [1.0])
