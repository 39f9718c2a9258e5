"""The rule that ranks tokens by score and keeps the first ones of each image."""

from __future__ import annotations

from torch import Tensor

from ..query_selection.encoder_proposals import ProposalGrid
from ..structures import FeatureTokens, TokenSelection
from .ranked_tokens import RankedTokens
from .text_forms import KeepRatioLike, as_keep_ratio


class TopRhoSelection:
    """Keeps the tokens of each image with the highest scores, as many as a keeping ratio says.

    Args:
        padding_competes: False never keeps a padded token. True is the released behaviour: padded
            tokens get the lowest logit of the whole batch (not detached, so the gradient of their
            loss reaches that token) and may be kept.
        edge_tokens_compete: False ranks tokens that are no proposal (outermost ring of a fine
            level) behind all others: they enter the network as zero, so their common score says
            nothing about them. True is the released behaviour.
        counts_from_largest: False takes the numbers of a cascade for each image from its own
            tokens. True is the released behaviour: from the largest image of the batch, with no
            more rows written back than the image's first layer keeps.

    Source: Sparse DETR, section 3.2; released code for the count.
    """

    def __init__(
        self,
        padding_competes: bool = False,
        edge_tokens_compete: bool = False,
        counts_from_largest: bool = False,
    ) -> None:
        self.padding_competes = padding_competes
        self.edge_tokens_compete = edge_tokens_compete
        self.counts_from_largest = counts_from_largest

    def __call__(
        self, logits: Tensor, tokens: FeatureTokens, grid: ProposalGrid, keep_ratio: KeepRatioLike
    ) -> TokenSelection:
        """The selection of a batch.

        Args:
            logits: (B, N) scores of the tokens.
            tokens: The tokens.
            grid: Their proposals.
            keep_ratio: How many to keep; a budget only after
                :meth:`KeepRatio.resolved <sparse_detr.token_selection.KeepRatio.resolved>`.
        """
        scores = self._masked(logits, tokens)
        ranks = scores.detach()
        if not self.edge_tokens_compete:
            ranks = grid.rank_last(ranks, tokens.padding_mask)
        ranked = RankedTokens(
            ranks, scores.detach(), tokens, self.padding_competes, self.counts_from_largest
        )
        layers = as_keep_ratio(keep_ratio).keep_for_layers(ranked)
        return TokenSelection(layers, scores, raw_scores=logits)

    def _masked(self, logits: Tensor, tokens: FeatureTokens) -> Tensor:
        if self.padding_competes:
            lowest = logits.masked_fill(tokens.padding_mask, float("inf")).min()
            return logits.where(~tokens.padding_mask, lowest)
        return logits.masked_fill(tokens.padding_mask, float("-inf"))
