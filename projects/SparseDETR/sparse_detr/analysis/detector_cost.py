"""What a detector costs on images of any size with any number of kept tokens, without a trace each.

Role: a trace takes about a second, an image set has tens of sizes and a keeping ratio takes any
value. A few traced small images give the counts of all others, exactly; see
:mod:`.map_size_polynomial`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from torch import nn

from ..layers.deformable_attention import MultiScaleDeformableAttention
from ..layers.sample_then_project import sampling_first_is_faster
from ..meta_arch import TransformerDetector
from ..query_selection import LearnedQueries
from ..structures import Size
from .conventions import HONEST, FlopConvention
from .flop_count import FlopCount, count_flops
from .map_size_polynomial import MapSizes, solve_exactly
from .operator_flops import SamplingSize, project_then_sample_flops, sample_then_project_flops

# What grows with the tokens of one encoder layer alone.
_ENCODER_PARTS = ("encoder attention", "encoder feed-forward")
_CROSS_ATTENTION = "decoder cross-attention"
# More images than factors: counts that are no such sum are noticed.
_SPARE_IMAGES = 3
_SMALLEST_SIDE = 160
_SIDE_RANGE = 130
_FINEST_STRIDE = 8


@dataclass(frozen=True)
class _Reading:
    """A deformable attention, as far as it decides what reading costs.

    Attributes:
        heads: Heads H.
        levels: Levels L.
        points: Points P per head and level.
        channels: Channels C.
        order: Its own order, True samples first; None decides by the number of queries.
    """

    heads: int
    levels: int
    points: int
    channels: int
    order: bool | None

    @classmethod
    def all_in(cls, module: nn.Module) -> tuple[_Reading, ...]:
        """Those of a module."""
        return tuple(
            cls(m.num_heads, m.num_levels, m.num_points, m.output_proj.in_features,
                m.project_after_sampling)
            for m in module.modules() if isinstance(m, MultiScaleDeformableAttention)
        )  # fmt: skip

    def saved_by_sampling_first(self, queries: int, tokens: int) -> int:
        """Multiply-adds less than in the usual order, negative if more."""
        sampling = SamplingSize(1, queries, self.heads, self.levels, self.points)
        width = self.channels // self.heads
        usual = project_then_sample_flops(sampling, tokens, self.channels, width)
        return usual - sample_then_project_flops(sampling, self.channels, width)


class DetectorCost:
    """Multiply-adds of a detector as a function of image size and kept tokens.

    Equal to :func:`count_flops`, to the last digit. ``uncounted`` names the operators that count
    nothing and are not known to be element-wise. It keeps no reference to the detector, so it
    also serves the one that was optimised from it (folded batch norms apart).

    Args:
        model: The detector, in evaluation mode. Some small images are traced, which takes seconds.
        convention: What is counted.
        project_after_sampling: As :func:`count_flops` takes it.

    Raises:
        ValueError: The detector cannot be counted (see :func:`count_flops`), or its counts do not
            follow from the sizes of maps that each halve the one before.
    """

    def __init__(
        self,
        model: TransformerDetector,
        convention: FlopConvention = HONEST,
        project_after_sampling: bool | None = None,
    ) -> None:
        self.num_layers = len(model.encoder.layers)
        self.is_sparse = model.token_scoring is not None
        self.convention = convention
        self._order = project_after_sampling
        self._device = model.device.type
        self._num_queries = _num_queries(model)
        # An encoder that reads a few points of each map does not compare all tokens with all.
        self._pairs = len(_Reading.all_in(model.encoder)) < self.num_layers
        self._encoder_reads = _Reading.all_in(model.encoder)
        self._decoder_reads = _Reading.all_in(model.decoder)
        self._reprojection = 0 if convention.released_computation else _reprojection_flops(model)
        self.uncounted: set[str] = set()
        self._fit(model)

    def tokens(self, image_size: Size) -> int:
        """Tokens N of an image.

        Args:
            image_size: (height, width) of the network's input, pixels.
        """
        return int(_value(self._of_tokens, self._maps.numbers(image_size)))

    def by_part(self, image_size: Size, kept: int | Sequence[int] = ()) -> dict[str, int]:
        """Multiply-adds of one image by part of the flow.

        Args:
            image_size: (height, width) of the network's input, pixels.
            kept: Tokens K that every encoder layer updates, or a number for each layer; nothing for
                a dense encoder.

        Raises:
            ValueError: ``kept`` does not fit the detector or the image.
        """
        layers, shared = self._layers(kept)
        tokens = self.tokens(image_size)
        if layers and not 0 <= min(layers) <= max(layers) <= tokens:
            raise ValueError(f"kept must lie between 0 and the {tokens} tokens, got {kept!r}")
        numbers = self._maps.numbers(image_size)
        mean = Fraction(sum(layers), max(1, len(layers)))
        parts = {}
        for part, factors in self._of_parts.items():
            # With a selection of its own for each layer no rows are shared by what follows.
            own = mean if shared or part in _ENCODER_PARTS else Fraction(0)
            parts[part] = int(_value(factors, _with_tokens(numbers, tokens, own, self._pairs)))
        if not shared and self._reprojection:
            parts["proposal projection"] += self._reprojection * tokens
        self._reorder(parts, layers or (tokens,) * self.num_layers, tokens)
        return parts

    def flops(self, image_size: Size, kept: int | Sequence[int] = ()) -> int:
        """Multiply-adds of one image; see :meth:`by_part`."""
        return sum(self.by_part(image_size, kept).values())

    def kept_within(self, image_size: Size, budget: float, max_kept: int | None = None) -> int:
        """The most tokens that all encoder layers may update within a budget.

        Args:
            image_size: (height, width) of the network's input, pixels.
            budget: Multiply-adds of one image.
            max_kept: The most that are wanted; None is all.

        Returns:
            K; 0 where the budget is too small for a single token.

        Raises:
            ValueError: The detector updates all tokens always.
        """
        if not self.is_sparse:
            raise ValueError("the detector does not score tokens, so no budget can be kept by it")
        low, high = 0, self.tokens(image_size) if max_kept is None else max_kept
        while low < high:
            middle = (low + high + 1) // 2
            if self.flops(image_size, middle) <= budget:
                low = middle
            else:
                high = middle - 1
        return low

    def _layers(self, kept: int | Sequence[int]) -> tuple[tuple[int, ...], bool]:
        """Kept tokens of each layer, and whether all layers share one selection."""
        if not self.is_sparse:
            if kept not in ((), None):
                raise ValueError(f"kept must be left out for a dense encoder, got {kept!r}")
            return (), True
        if isinstance(kept, int):
            return (kept,) * self.num_layers, True
        if len(kept) != self.num_layers:
            raise ValueError(f"kept must have {self.num_layers} numbers or be one, got {kept!r}")
        return tuple(kept), False

    def _reorder(self, parts: dict[str, int], layers: Sequence[int], tokens: int) -> None:
        """Takes off what the attentions save that sample first."""
        if self.convention.released_computation:
            return
        for read, kept in zip(self._encoder_reads, layers, strict=False):
            if self._samples_first(read, kept, tokens):
                parts["encoder attention"] -= read.saved_by_sampling_first(kept, tokens)
        queries = min(self._num_queries, tokens)
        for read in self._decoder_reads:
            if self._samples_first(read, queries, tokens):
                parts[_CROSS_ATTENTION] -= read.saved_by_sampling_first(queries, tokens)

    def _samples_first(self, read: _Reading, queries: int, tokens: int) -> bool:
        order = read.order if self._order is None else self._order
        if order is not None:
            return order
        return sampling_first_is_faster(self._device, queries, tokens, with_gradient=False)

    def _fit(self, model: TransformerDetector) -> None:
        """Finds the factors of tokens and parts from small images."""
        images = _SmallImages(model, self.convention, self._num_queries)
        for rounded_down in (False, True):
            self._maps = _map_sizes(model, rounded_down)
            count = len(self._maps.numbers((1, 1))) + len(
                _with_tokens([], 0, Fraction(0), self._pairs)
            )
            counted = images.first(count + _SPARE_IMAGES)
            self.uncounted = {name for _, c in counted for name in c.uncounted}
            rows = [self._maps.numbers(size) for size, _ in counted]
            of_tokens = solve_exactly(rows, [[count.num_tokens] for _, count in counted])
            if of_tokens is None:
                continue
            self._of_tokens = of_tokens[0]
            whole = [
                _with_tokens(row, c.num_tokens, Fraction(c.kept[0] if c.kept else 0), self._pairs)
                for row, (_, c) in zip(rows, counted, strict=True)
            ]
            names = list(counted[0][1].by_part)
            values = [[count.by_part.get(name, 0) for name in names] for _, count in counted]
            factors = solve_exactly(whole, values)
            if factors is not None:
                self._of_parts = dict(zip(names, factors, strict=True))
                return
        raise ValueError(
            "the counts of the detector do not follow from the sizes of maps that each halve the "
            "one before; count each image size with count_flops"
        )


class _SmallImages:
    """Counts of small images of many sizes and keeping ratios, each traced when it is needed."""

    def __init__(
        self, model: TransformerDetector, convention: FlopConvention, num_queries: int
    ) -> None:
        self._counts = self._count(model, convention, num_queries)
        self._known: list[tuple[Size, FlopCount]] = []

    def first(self, count: int) -> list[tuple[Size, FlopCount]]:
        """Size and count of the first images."""
        while len(self._known) < count:
            self._known.append(next(self._counts))
        return self._known[:count]

    @staticmethod
    def _count(
        model: TransformerDetector, convention: FlopConvention, num_queries: int
    ) -> Iterator[tuple[Size, FlopCount]]:
        draw = random.Random(0)
        # Large enough for all queries to find a token.
        low = max(_SMALLEST_SIDE, _FINEST_STRIDE * isqrt(num_queries) + 2 * _FINEST_STRIDE)
        while True:
            size = (low + draw.randrange(_SIDE_RANGE), low + draw.randrange(_SIDE_RANGE))
            ratio = None if model.token_scoring is None else draw.uniform(0.05, 1.0)
            yield size, count_flops(model, size, ratio, convention, project_after_sampling=False)


def _with_tokens(
    numbers: Sequence[int], tokens: int, kept: Fraction, pairs: bool
) -> list[Fraction]:
    """Numbers of the maps, then kept tokens, then the pairs of tokens of a dense attention."""
    of_pairs = [kept * tokens, Fraction(tokens * tokens)] if pairs else []
    return [*map(Fraction, numbers), kept, *of_pairs]


def _value(factors: Sequence[Fraction], numbers: Sequence[Fraction | int]) -> Fraction:
    total = sum((f * n for f, n in zip(factors, numbers, strict=True)), Fraction(0))
    assert total.denominator == 1
    return total


def _map_sizes(model: TransformerDetector, rounded_down: bool) -> MapSizes:
    """The maps of a detector: of half the image's side, of half of that, to the coarsest level."""
    levels = len(model.position_embedding.level_embed)
    strides = tuple(2**power for power in range(1, max(5, levels + 2) + 1))
    windows = {
        int(side)
        for module in model.backbone.modules()
        for side in (getattr(module, "window_size", None) or ())
    }
    return MapSizes(strides, levels, tuple(sorted(windows)), rounded_down)


def _num_queries(model: TransformerDetector) -> int:
    selection = model.query_selection
    if isinstance(selection, LearnedQueries):
        return selection.query_embed.num_embeddings
    return selection.num_queries


def _reprojection_flops(model: TransformerDetector) -> int:
    """Multiply-adds of one token that a selection shared by all encoder layers saves afterwards."""
    scoring, projection = model.token_scoring, model.proposal_projection
    if projection is None or scoring is None:
        return 0
    if not (scoring.reads_projection and model.heads.two_stage):
        return 0
    return projection.projection.in_features * projection.projection.out_features
