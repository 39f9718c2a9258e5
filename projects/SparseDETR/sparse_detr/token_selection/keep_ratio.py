"""How many tokens the encoder updates: one share, or a rule that says more.

Role in the flow: the control of token selection; set on the detector, in its config, or per call.
Each kind has a one-line text that :func:`sparse_detr.token_selection.as_keep_ratio` reads back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from ..query_selection.encoder_proposals import top_tokens
from ..structures import FeatureTokens, KeptTokens
from .ranked_tokens import RankedTokens

if TYPE_CHECKING:
    from ..meta_arch import TransformerDetector

LOWEST, HIGHEST = 0.01, 1.0
FORMS = (
    "levels:0.1,0.3,0.5,1 layers:0.5,0.4,0.3 cascade:0.5x1,0.8,0.6 mass:0.9 gflops:100 latency:150"
)


def check_keep_ratio(keep_ratio: Any, name: str = "keep_ratio") -> float:
    """The keeping ratio as a float.

    Args:
        keep_ratio: Share rho of the tokens to keep.
        name: What it is, for the message.

    Raises:
        ValueError: Not a number in (0, 1].
    """
    try:
        # float() would read text and truth values as well, which are mistakes worth a message.
        no_number = isinstance(keep_ratio, (str, bytes, bool))
        value = float("nan") if no_number else float(keep_ratio)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0.0 < value <= 1.0:
        whole = (
            "; for a dense encoder use a config of the dense twin (Deformable DETR; DETR for "
            f"PnP-DETR); other forms: {FORMS}"
        )
        raise ValueError(
            f"{name} must be a number in (0, 1], got {keep_ratio!r}"
            f"{whole if name == 'keep_ratio' else ''}"
        )
    return value


def kept_count(valid_count: int, keep_ratio: float) -> int:
    """Number of tokens to keep of an image.

    Args:
        valid_count: Tokens of the image that are not padding.
        keep_ratio: Share rho in (0, 1].

    Returns:
        ``int(valid_count * rho) + 1``, the product in float32.

    Source: released code. Exact arithmetic differs for a few ratios, 0.35 and 0.7 among them.
    """
    return int(np.float32(valid_count) * np.float32(keep_ratio)) + 1


def number_text(value: float) -> str:
    """The shortest text that reads back as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def check_bounds(lowest: Any, highest: Any, kind: str) -> tuple[float, float]:
    """The bounds of a rule, as floats.

    Args:
        lowest: Least share of the tokens to keep.
        highest: Greatest share.
        kind: Of keeping ratio, for the message.

    Raises:
        ValueError: They are no shares, or the wrong way round.
    """
    low = check_keep_ratio(lowest, f"lowest bound of keep_ratio {kind}")
    high = check_keep_ratio(highest, f"highest bound of keep_ratio {kind}")
    if low > high:
        raise ValueError(
            f"bounds of keep_ratio {kind} must be lowest-highest, got {low:g}-{high:g}; "
            f"write {high:g}-{low:g}"
        )
    return low, high


def bounds_text(lowest: float, highest: float) -> str:
    """What a text form says about its bounds; nothing about the usual ones."""
    if (lowest, highest) == (LOWEST, HIGHEST):
        return ""
    return f",{number_text(lowest)}-{number_text(highest)}"


class KeepRatio(ABC):
    """How many tokens of each image the layers of the encoder update."""

    @abstractmethod
    def keep(self, ranked: RankedTokens) -> KeptTokens:
        """The kept tokens of a batch, for one layer.

        Args:
            ranked: The tokens in the order in which they are kept.
        """

    def keep_for_layers(self, ranked: RankedTokens) -> tuple[KeptTokens, ...]:
        """The kept tokens of each encoder layer, or a single entry that all share."""
        return (self.keep(ranked),)

    def check_fits(self, num_levels: int, num_layers: int) -> None:
        """Raises unless the ratio fits a detector.

        Args:
            num_levels: Levels L of the detector.
            num_layers: Layers E of its encoder.

        Raises:
            ValueError: Says what is expected.
        """
        return

    def resolved(self, detector: TransformerDetector, tokens: FeatureTokens) -> KeepRatio:
        """What to do for a batch, where that needs more than the ranked tokens.

        Args:
            detector: The detector that asks.
            tokens: The tokens of the batch.
        """
        return self


@dataclass(frozen=True)
class Uniform(KeepRatio):
    """The same share of every image's tokens.

    Attributes:
        ratio: Share rho in (0, 1].

    Source: Sparse DETR, section 3.2.
    """

    ratio: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", check_keep_ratio(self.ratio))

    def __str__(self) -> str:
        return number_text(self.ratio)

    def keep(self, ranked: RankedTokens) -> KeptTokens:
        """See :meth:`KeepRatio.keep`."""
        valid = ranked.tokens.valid_counts
        return ranked.best([kept_count(count, self.ratio) for count in valid])


@dataclass(frozen=True)
class FixedCounts(KeepRatio):
    """Given numbers of tokens: what a budget comes to for a batch.

    Attributes:
        counts: Tokens to keep of each image of the batch.
    """

    counts: tuple[int, ...]

    def __str__(self) -> str:
        return "counts:" + ",".join(str(count) for count in self.counts)

    def keep(self, ranked: RankedTokens) -> KeptTokens:
        """See :meth:`KeepRatio.keep`."""
        return ranked.best(self.counts)


@dataclass(frozen=True)
class PerLevel(KeepRatio):
    """A share of its own for each level: tokens compete with those of their level alone.

    Attributes:
        ratios: L shares in (0, 1], the finest level first. Of each level the released count rule
            is taken, :func:`kept_count`.
    """

    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        ratios = check_several(self.ratios, "levels")
        checked = (check_keep_ratio(r, f"level {i} of keep_ratio") for i, r in enumerate(ratios))
        object.__setattr__(self, "ratios", tuple(checked))

    def __str__(self) -> str:
        return "levels:" + ",".join(number_text(ratio) for ratio in self.ratios)

    def check_fits(self, num_levels: int, num_layers: int) -> None:
        """See :meth:`KeepRatio.check_fits`."""
        if len(self.ratios) != num_levels:
            raise ValueError(
                f"keep_ratio {str(self)!r} has {len(self.ratios)} levels, but the detector has "
                f"{num_levels}; give one number for each, the finest level first"
            )

    def keep(self, ranked: RankedTokens) -> KeptTokens:
        """See :meth:`KeepRatio.keep`."""
        shapes = ranked.tokens.spatial_shapes
        self.check_fits(len(shapes), 1)
        chosen = torch.zeros_like(ranked.ranks, dtype=torch.bool)
        totals = [0] * len(ranked.ranks)
        for level, (start, (height, width), ratio) in enumerate(
            zip(ranked.tokens.level_start_index, shapes, self.ratios, strict=True)
        ):
            own, limits = ranked.level_counts(level), ranked.level_limits(level)
            pairs = zip(own, limits, strict=True)
            counts = tuple(min(kept_count(count, ratio), limit) for count, limit in pairs)
            there = slice(start, start + height * width)
            best = KeptTokens(top_tokens(ranked.ranks[:, there], max(counts)), counts)
            chosen[:, there] = best.membership(height * width)
            totals = [total + count for total, count in zip(totals, counts, strict=True)]
        ranks = ranked.ranks.masked_fill(~chosen, float("-inf"))
        return KeptTokens(top_tokens(ranks, max(totals)), tuple(totals))


@dataclass(frozen=True)
class PerLayer(KeepRatio):
    """A keeping ratio of its own for each layer of the encoder.

    Attributes:
        entries: E keeping ratios, the first layer first: :class:`Uniform` (also given as a
            number), :class:`PerLevel` or :class:`ScoreMass`. Later entries need not lie within
            earlier ones.
    """

    entries: tuple[KeepRatio | float, ...]

    def __post_init__(self) -> None:
        entries = []
        for index, entry in enumerate(check_several(self.entries, "layers")):
            if not isinstance(entry, KeepRatio):
                entry = Uniform(check_keep_ratio(entry, f"layer {index} of keep_ratio"))
            if not isinstance(entry, (Uniform, PerLevel, ScoreMass)):
                raise ValueError(
                    f"layer {index} of keep_ratio must be a number, levels:... or mass:..., got "
                    f"{str(entry)!r}, which is about the whole detector; give it without layers:"
                )
            entries.append(entry)
        object.__setattr__(self, "entries", tuple(entries))

    def __str__(self) -> str:
        plain = all(isinstance(entry, Uniform) for entry in self.entries)
        return "layers:" + ("," if plain else "/").join(str(entry) for entry in self.entries)

    def check_fits(self, num_levels: int, num_layers: int) -> None:
        """See :meth:`KeepRatio.check_fits`."""
        if len(self.entries) != num_layers:
            raise ValueError(
                f"keep_ratio {str(self)!r} has {len(self.entries)} layers, but the encoder has "
                f"{num_layers}; give one entry for each, the first layer first"
            )
        for ratio in self._ratios:
            ratio.check_fits(num_levels, num_layers)

    def keep(self, ranked: RankedTokens) -> KeptTokens:
        """See :meth:`KeepRatio.keep`; refuses entries that differ.

        Raises:
            ValueError: The layers keep different tokens.
        """
        kept = self.keep_for_layers(ranked)
        if len(kept) > 1:
            raise ValueError(f"keep_ratio {str(self)!r} keeps other tokens in other layers")
        return kept[0]

    def keep_for_layers(self, ranked: RankedTokens) -> tuple[KeptTokens, ...]:
        """See :meth:`KeepRatio.keep_for_layers`; equal entries give one and the same object."""
        kept = {ratio: ratio.keep(ranked) for ratio in dict.fromkeys(self._ratios)}
        if len(kept) == 1:
            return tuple(kept.values())
        return tuple(kept[ratio] for ratio in self._ratios)

    @property
    def _ratios(self) -> tuple[KeepRatio, ...]:
        return cast(tuple[KeepRatio, ...], self.entries)  # numbers became ratios at the start


@dataclass(frozen=True)
class ScoreMass(KeepRatio):
    """As many tokens as hold a share of the predicted score mass, for each image by itself.

    Tokens are taken in the order in which they are ranked until the sum of ``sigmoid(score)``
    reaches the share of that sum over all of the image's own tokens; never fewer than the lowest
    bound keeps, nor more than the highest.

    Attributes:
        share: Of the score mass, in (0, 1].
        lowest: Least share of the tokens to keep.
        highest: Greatest share of the tokens to keep.
    """

    share: float
    lowest: float = LOWEST
    highest: float = HIGHEST

    def __post_init__(self) -> None:
        share = check_keep_ratio(self.share, "share of the score mass in keep_ratio")
        object.__setattr__(self, "share", share)
        lowest, highest = check_bounds(self.lowest, self.highest, "mass")
        object.__setattr__(self, "lowest", lowest)
        object.__setattr__(self, "highest", highest)

    def __str__(self) -> str:
        return f"mass:{number_text(self.share)}{bounds_text(self.lowest, self.highest)}"

    def keep(self, ranked: RankedTokens) -> KeptTokens:
        """See :meth:`KeepRatio.keep`. The host waits for the device once."""
        valid = ranked.tokens.valid_counts
        most = ranked.best([kept_count(count, self.highest) for count in valid])
        # In float64 the order of summation, which padding changes, cannot move the count.
        scores = ranked.scores.masked_fill(ranked.tokens.padding_mask, float("-inf"))
        mass = scores.double().sigmoid()
        wanted = self.share * mass.sum(1, keepdim=True)
        reached = most.gather(mass).cumsum(1)
        counts = ((reached < wanted).sum(1) + 1).tolist()
        kept = tuple(
            min(max(count, kept_count(own, self.lowest)), limit)
            for count, own, limit in zip(counts, valid, most.kept_counts, strict=True)
        )
        return KeptTokens(most.kept_indices[:, : max(kept)], kept)


def check_several(values: Any, kind: str) -> Sequence[Any]:
    """Values that are several, at least one.

    Raises:
        ValueError: They are not.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"keep_ratio {kind} must be a sequence of at least one, got {values!r}")
    return values
