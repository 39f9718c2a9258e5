"""Selection of the tokens that the encoder updates: the top rho by score.

Role in the flow: token scoring -> **token selection** -> encoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .query_selection.encoder_proposals import ProposalGrid, top_tokens
from .structures import FeatureTokens, KeptTokens, TokenSelection


def check_keep_ratio(keep_ratio: Any) -> float:
    """The keeping ratio as a float.

    Args:
        keep_ratio: Share rho of the tokens to keep.

    Raises:
        ValueError: Not a number in (0, 1].
    """
    try:
        # float() would read text as well; a quoted number is a mistake worth a message.
        value = float("nan") if isinstance(keep_ratio, (str, bytes)) else float(keep_ratio)
    except (TypeError, ValueError):
        value = float("nan")
    if not 0.0 < value <= 1.0:
        raise ValueError(
            f"keep_ratio must be a number in (0, 1], got {keep_ratio!r}; "
            "for a dense encoder use a Deformable DETR config"
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


class TopRhoSelection:
    """Keeps the share rho of each image's tokens with the highest scores.

    Args:
        padding_competes: False never keeps a padded token. True is the released behaviour: padded
            tokens get the lowest logit of the whole batch (not detached, so the gradient of their
            loss reaches that token) and may be kept.
        edge_tokens_compete: False ranks tokens that are no proposal (outermost ring of a fine
            level) behind all others: they enter the network as zero, so their common score says
            nothing about them. True is the released behaviour.

    Source: Sparse DETR, section 3.2; released code for the count.
    """

    def __init__(self, padding_competes: bool = False, edge_tokens_compete: bool = False) -> None:
        self.padding_competes = padding_competes
        self.edge_tokens_compete = edge_tokens_compete

    def __call__(
        self, logits: Tensor, tokens: FeatureTokens, grid: ProposalGrid, keep_ratio: float
    ) -> TokenSelection:
        """The selection of a batch, the same for all encoder layers.

        Args:
            logits: (B, N) of the scoring network.
            tokens: The tokens.
            grid: Their proposals.
            keep_ratio: Share rho in (0, 1].
        """
        scores = self._masked(logits, tokens)
        ranked = scores.detach()
        if not self.edge_tokens_compete:
            ranked = grid.rank_last(ranked, tokens.padding_mask)
        num_tokens = logits.shape[1]
        limits = (
            [num_tokens] * len(tokens.valid_counts)
            if self.padding_competes
            else list(tokens.valid_counts)
        )
        counts = tuple(
            min(kept_count(valid, keep_ratio), limit)
            for valid, limit in zip(tokens.valid_counts, limits, strict=True)
        )
        indices = top_tokens(ranked, max(counts))
        return TokenSelection((KeptTokens(indices, counts),), scores)

    def _masked(self, logits: Tensor, tokens: FeatureTokens) -> Tensor:
        if self.padding_competes:
            lowest = logits.masked_fill(tokens.padding_mask, float("inf")).min()
            return logits.where(~tokens.padding_mask, lowest)
        return logits.masked_fill(tokens.padding_mask, float("-inf"))
