"""The tokens of a batch in the order in which they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..query_selection.encoder_proposals import top_tokens
from ..structures import FeatureTokens, KeptTokens


@dataclass(frozen=True)
class RankedTokens:
    """What a keeping ratio chooses from.

    Attributes:
        ranks: (B, N) the higher, the earlier a token is kept; no gradient.
        scores: (B, N) logits of the tokens as the selection saw them; no gradient.
        tokens: The tokens.
        padding_competes: Whether padded tokens may be kept (released behaviour).
        counts_from_largest: Whether a cascade counts from the largest image of the batch (released
            behaviour).
    """

    ranks: Tensor
    scores: Tensor
    tokens: FeatureTokens
    padding_competes: bool = False
    counts_from_largest: bool = False

    @property
    def limits(self) -> tuple[int, ...]:
        """B numbers of tokens that may be kept."""
        valid = self.tokens.valid_counts
        return (self.ranks.shape[1],) * len(valid) if self.padding_competes else valid

    def level_limits(self, level: int) -> tuple[int, ...]:
        """B numbers of tokens that may be kept of a level."""
        if self.padding_competes:
            height, width = self.tokens.spatial_shapes[level]
            return (height * width,) * len(self.ranks)
        return self.level_counts(level)

    def level_counts(self, level: int) -> tuple[int, ...]:
        """B numbers of tokens of a level that are not padding."""
        covered = self.tokens.geometry.covered
        return tuple(image[level][0] * image[level][1] for image in covered)

    def best(self, counts: Sequence[int]) -> KeptTokens:
        """The first tokens of each image.

        Args:
            counts: B numbers of tokens to keep; the images' limits are applied.
        """
        kept = tuple(min(pair) for pair in zip(counts, self.limits, strict=True))
        return KeptTokens(top_tokens(self.ranks, max(kept)), kept)
