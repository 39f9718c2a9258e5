"""What a detector costs on images of any size with any number of kept tokens, without a trace each.

Role: a trace takes about a second, an image set has tens of sizes and a keeping ratio takes any
value. A few traced small images give the counts of all others, exactly; see
:mod:`.map_size_polynomial`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn

from ..layers import backend
from ..layers.deformable_attention import MultiScaleDeformableAttention
from ..layers.sample_then_project import sampling_first_is_faster
from ..meta_arch import TransformerDetector
from ..query_selection import LearnedQueries
from ..structures import Size
from ..token_selection.budgets import most_within
from .conventions import HONEST, FlopConvention
from .map_size_polynomial import MapSizes, solve_exactly
from .operator_flops import SamplingSize, project_then_sample_flops, sample_then_project_flops
from .small_images import SmallImages, queries_that_compete

# What grows with the tokens of one encoder layer alone.
_ENCODER_PARTS = ("encoder attention", "encoder feed-forward")
_CROSS_ATTENTION = "decoder cross-attention"
# More images than factors: counts that are no such sum are noticed.
_SPARE_IMAGES = 3


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
        self._queries = queries_that_compete(model)
        self._learned_queries = _learned_queries(model)
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
        return self._tokens(self._maps.numbers(image_size))

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
        queries = min(self._queries, tokens)
        in_encoder: Fraction | int | None = None
        afterwards: Fraction | int | None = None
        if layers:
            # With a selection of its own for each layer no rows are shared by what follows.
            in_encoder = layers[0] if shared else Fraction(sum(layers), len(layers))
            afterwards = layers[0] if shared else 0
        of_encoder, of_rest = (
            [*numbers, *self._columns(tokens, k, queries)] for k in (in_encoder, afterwards)
        )
        parts = {
            part: total(of_encoder if part in _ENCODER_PARTS else of_rest)
            for part, total in self._parts.items()
        }
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
        most = self.tokens(image_size) if max_kept is None else max_kept
        return most_within(
            lambda kept: self.flops(image_size, kept), budget, 0, most, self.rises_from(image_size)
        )

    def rises_from(self, image_size: Size) -> tuple[int, ...]:
        """Gives the numbers of kept tokens at which the cost may fall; between them it rises.

        There an attention of the encoder changes the order of sampling and projecting, which is
        chosen for its time and may cost less from there on.

        Args:
            image_size: (height, width) of the network's input, pixels.
        """
        if self.convention.released_computation:
            return ()
        tokens = self.tokens(image_size)
        changes = {
            bisect_left(
                range(tokens + 1),
                True,
                key=lambda kept: not self._samples_first(read, kept, tokens),
            )
            for read in set(self._encoder_reads)
        }
        return tuple(sorted(change for change in changes if 0 < change <= tokens))

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
        queries = min(self._queries, tokens) or self._learned_queries
        for read in self._decoder_reads:
            if self._samples_first(read, queries, tokens):
                parts[_CROSS_ATTENTION] -= read.saved_by_sampling_first(queries, tokens)

    def _samples_first(self, read: _Reading, queries: int, tokens: int) -> bool:
        order = read.order if self._order is None else self._order
        if order is not None:
            return order and backend.is_native(self._device)
        return sampling_first_is_faster(self._device, queries, tokens, with_gradient=False)

    def _fit(self, model: TransformerDetector) -> None:
        """Finds the factors of tokens and parts from small images."""
        images = SmallImages(model, self.convention)
        for rounded_down in (False, True):
            self._maps = _map_sizes(model, rounded_down)
            others = len(self._columns(0, 0 if self.is_sparse else None, 0))
            samples = images.telling_apart(self._maps, others + _SPARE_IMAGES)
            if samples is None:
                continue
            counts = [sample.count for sample in samples]
            self.uncounted = {name for count in counts for name in count.uncounted}
            rows = [self._maps.numbers(sample.size) for sample in samples]
            of_tokens = solve_exactly(rows, [[count.num_tokens] for count in counts])
            if of_tokens is None:
                continue
            self._tokens = of_tokens[0]
            whole = [
                [*row, *self._columns(c.num_tokens, c.kept[0] if c.kept else None, sample.queries)]
                for row, sample, c in zip(rows, samples, counts, strict=True)
            ]
            names = list(counts[0].by_part)
            values = [[count.by_part.get(name, 0) for name in names] for count in counts]
            sums = solve_exactly(whole, values)
            if sums is not None:
                self._parts = dict(zip(names, sums, strict=True))
                return
        raise ValueError(
            "the counts of the detector do not follow from the sizes of maps that each halve the "
            "one before; count each image size with count_flops"
        )

    def _columns(
        self, tokens: int, kept: Fraction | int | None, queries: int
    ) -> list[Fraction | int]:
        """What a count is a sum of beside the numbers of the maps.

        Args:
            tokens: Tokens N.
            kept: Tokens K that the encoder updates; None for a dense encoder.
            queries: Queries Q that tokens competed for.
        """
        found: list[Fraction | int] = [] if kept is None else [kept]
        if self._pairs:
            found += [tokens * tokens] if kept is None else [kept * tokens, tokens * tokens]
        # What is the same for all images has no column of its own.
        powers = min(2, max(0, self._queries - 1))
        return found + [queries**power for power in range(1, powers + 1)]


def _map_sizes(model: TransformerDetector, rounded_down: bool) -> MapSizes:
    """The maps of a detector: of half the image's side, of half of that, to the coarsest level."""
    levels = len(model.position_embedding.level_embed)
    strides = tuple(2**power for power in range(1, max(5, levels + 2) + 1))
    windows = {
        int(side)
        for module in model.backbone.modules()
        for side in (getattr(module, "window_size", None) or ())
    }
    backbone: Any = model.backbone  # of Detectron2's kind
    coarsest = max(int(shape.stride) for shape in backbone.output_shape().values())
    return MapSizes(strides, levels, tuple(sorted(windows)), rounded_down, coarsest)


def _learned_queries(model: TransformerDetector) -> int:
    selection = model.query_selection
    return selection.query_embed.num_embeddings if isinstance(selection, LearnedQueries) else 0


def _reprojection_flops(model: TransformerDetector) -> int:
    """Multiply-adds of one token that a selection shared by all encoder layers saves afterwards."""
    scoring, projection = model.token_scoring, model.proposal_projection
    if projection is None or scoring is None:
        return 0
    if not (scoring.reads_projection and model.heads.two_stage):
        return 0
    return projection.projection.in_features * projection.projection.out_features
