"""Counts of small images from which those of all others follow.

Role: read by :mod:`.detector_cost`. Sizes are drawn until the numbers of their maps
(:mod:`.map_size_polynomial`) tell every factor apart; only the sizes that help are traced.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..meta_arch import TransformerDetector
from ..query_selection import LearnedQueries
from ..structures import Size
from .conventions import FlopConvention
from .flop_count import FlopCount, count_flops
from .map_size_polynomial import MapSizes, RowSpace

_MARGIN = 8
_SIDE_RANGE = 130
# Sizes to look at; the rarest that matter, multiples of 64, are two in 130.
_MOST_DRAWN = 5000


@dataclass(frozen=True)
class Sample:
    """A traced image.

    Attributes:
        size: (height, width), pixels.
        queries: Queries Q that the decoder worked on.
        count: Its count.
    """

    size: Size
    queries: int
    count: FlopCount


def queries_that_compete(model: TransformerDetector) -> int:
    """The queries that tokens compete for, as many as there are at most; 0 for learned ones.

    Args:
        model: The detector.
    """
    selection = model.query_selection
    return 0 if isinstance(selection, LearnedQueries) else int(selection.num_queries)


class SmallImages:
    """Counts of small images of many sizes, keeping ratios and numbers of queries.

    Args:
        model: The detector, in evaluation mode. Its number of queries is changed while it counts.
        convention: What is counted.
    """

    def __init__(self, model: TransformerDetector, convention: FlopConvention) -> None:
        self._model = model
        self._convention = convention
        self._draw = random.Random(0)
        self._queries = queries_that_compete(model)
        self._traced: list[Sample] = []

    def telling_apart(self, maps: MapSizes, spare: int) -> list[Sample] | None:
        """Samples whose numbers of maps are independent of each other, and some more.

        Args:
            maps: Maps whose numbers are to be told apart.
            spare: How many more.

        Returns:
            The samples, or None where no image tells all numbers apart.
        """
        space = RowSpace(len(maps.numbers((1, 1))))
        for sample in self._traced:
            space.add(maps.numbers(sample.size))
        sizes = []
        for _ in range(_MOST_DRAWN):
            if space.is_full:
                break
            size = self._size(maps)
            if space.add(maps.numbers(size)):
                sizes.append(size)
        if not space.is_full:
            return None
        sizes += [self._size(maps) for _ in range(spare)]
        self._traced += [self._trace(size) for size in sizes]
        return self._traced

    def _size(self, maps: MapSizes) -> Size:
        # Small, with more than one cell in every map, and every map in more than one size.
        low = maps.strides[-1] + _MARGIN
        spread = max(_SIDE_RANGE, *maps.periods)
        return low + self._draw.randrange(spread), low + self._draw.randrange(spread)

    def _trace(self, size: Size) -> Sample:
        queries = self._draw.randint(1, self._queries) if self._queries else 0
        ratio = None if self._model.token_scoring is None else self._draw.uniform(0.05, 1.0)
        with _queries_set(self._model, queries):
            count = count_flops(
                self._model, size, ratio, self._convention, project_after_sampling=False
            )
        return Sample(size, min(queries, count.num_tokens), count)


@contextmanager
def _queries_set(model: TransformerDetector, queries: int) -> Iterator[None]:
    """Lets tokens compete for another number of queries, for the time of the block."""
    selection = model.query_selection
    if not queries or isinstance(selection, LearnedQueries):
        yield
        return
    before = selection.num_queries
    selection.num_queries = queries
    try:
        yield
    finally:
        selection.num_queries = before
