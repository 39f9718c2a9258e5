"""Medians with their spread, of measurements and of ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Middle, smallest and largest of some measurements.

    Attributes:
        median: The middle one.
        smallest: The smallest.
        largest: The largest.
        count: How many there are.
    """

    median: float
    smallest: float
    largest: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        if not values:
            raise ValueError("values must hold at least one measurement, got none")
        return Spread(statistics.median(values), min(values), max(values), len(values))

    def scaled(self, factor: float) -> Spread:
        """The same in another unit; ``factor`` is positive."""
        return Spread(
            self.median * factor, self.smallest * factor, self.largest * factor, self.count
        )


def pairwise_ratios(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """How many times longer ``slow`` took, from the ratio of each round.

    Both were measured one after the other in each round, so that what the machine did falls on
    both. A ratio of medians would lose that.

    Args:
        slow: One measurement per round.
        fast: One measurement per round, of the same rounds.
    """
    if len(slow) != len(fast):
        raise ValueError(
            f"slow and fast must be of the same rounds, got {len(slow)} and {len(fast)} of them"
        )
    return Spread.of([a / b for a, b in zip(slow, fast, strict=True)])
