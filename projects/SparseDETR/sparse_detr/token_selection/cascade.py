"""Cascaded numbers of kept tokens: each encoder layer updates a share of what the first one does.

Role in the flow: a form of the keeping ratio, for Focus-DETR.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from ..structures import KeptTokens
from .keep_ratio import KeepRatio, check_keep_ratio, check_several, kept_count, number_text
from .ranked_tokens import RankedTokens

RELEASED_FACTORS = (1.0, 0.8, 0.6, 0.6, 0.4, 0.2)


@dataclass(frozen=True)
class Cascade(KeepRatio):
    """Each encoder layer keeps a share of the tokens that a first selection takes.

    Every layer's tokens are the first ones of the same order, so they lie within those of a layer
    that keeps more.

    Attributes:
        ratio: Share of an image's tokens that the first selection takes, in (0, 1].
        factors: E shares of the first selection, in (0, 1], the first layer first.

    Source: Focus-DETR, section 3.2; released code for the numbers: ``floor(factor * first)`` of
        ``int(tokens * ratio) + 1`` first ones.
    """

    ratio: float = 0.5
    factors: tuple[float, ...] = RELEASED_FACTORS

    def __post_init__(self) -> None:
        ratio = check_keep_ratio(self.ratio, "ratio of keep_ratio cascade")
        object.__setattr__(self, "ratio", ratio)
        factors = check_several(self.factors, "cascade")
        checked = (
            check_keep_ratio(f, f"factor {i} of keep_ratio cascade") for i, f in enumerate(factors)
        )
        object.__setattr__(self, "factors", tuple(checked))

    def __str__(self) -> str:
        factors = ",".join(number_text(factor) for factor in self.factors)
        return f"cascade:{number_text(self.ratio)}x{factors}"

    def check_fits(self, num_levels: int, num_layers: int) -> None:
        """See :meth:`KeepRatio.check_fits`."""
        if len(self.factors) != num_layers:
            raise ValueError(
                f"keep_ratio {str(self)!r} has {len(self.factors)} factors, but the encoder has "
                f"{num_layers} layers; give one factor for each, the first layer first"
            )

    def keep(self, ranked: RankedTokens) -> KeptTokens:
        """See :meth:`KeepRatio.keep`; refuses factors that differ.

        Raises:
            ValueError: The layers keep different tokens.
        """
        if len(set(self.factors)) > 1:
            raise ValueError(f"keep_ratio {str(self)!r} keeps other tokens in other layers")
        return self.keep_for_layers(ranked)[0]

    def keep_for_layers(self, ranked: RankedTokens) -> tuple[KeptTokens, ...]:
        """See :meth:`KeepRatio.keep_for_layers`; equal factors give one and the same object."""
        valid = ranked.tokens.valid_counts
        first = ranked.best([kept_count(count, self.ratio) for count in valid])
        if ranked.counts_from_largest:
            # One object for each layer: the released code reads all rows anew in every layer,
            # also those that it did not write back.
            largest = max(first.kept_counts)
            return tuple(
                _leading(first, [share_of(largest, factor)] * len(valid)) for factor in self.factors
            )
        kept = {
            factor: _leading(first, [share_of(count, factor) for count in first.kept_counts])
            for factor in dict.fromkeys(self.factors)
        }
        return tuple(kept[factor] for factor in self.factors)


def share_of(count: int, factor: float) -> int:
    """``floor(factor * count)`` of the number as it is written, at least 1.

    Args:
        count: Tokens of the first selection.
        factor: Share of them in (0, 1].
    """
    return max(1, int(Fraction(number_text(factor)) * count))


def _leading(first: KeptTokens, counts: list[int]) -> KeptTokens:
    """The first tokens of a selection, of each image no more than its own."""
    own = tuple(min(pair) for pair in zip(counts, first.kept_counts, strict=True))
    return KeptTokens(first.kept_indices[:, : max(counts)], own)
