"""PnP-DETR's scores: a small network on every token's features.

Role in the flow: FeatureTokens -> **token scoring** -> poll and pool.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.initialization import xavier_matrices_
from ..layers.mlp import MLP
from ..query_selection.encoder_proposals import Proposals
from ..structures import FeatureTokens, TokenScores


class PollScoring(nn.Module):
    """Logits of how informative tokens are, from their features alone.

    It learns through the tokens that are polled, which are multiplied by their score.

    Args:
        hidden_dim: Channels C.
        score_dim: Channels between the two layers; None has a single layer.

    Attributes:
        reads_projection: Whether the scores are read from the proposal projection.

    Source: PnP-DETR, section 3.2 (poll sampler, meta scoring network).
    """

    reads_projection = False

    def __init__(self, hidden_dim: int, score_dim: int | None = None) -> None:
        super().__init__()
        layers = 1 if score_dim is None else 2
        self.network = MLP(hidden_dim, score_dim or hidden_dim, 1, layers)
        xavier_matrices_(self)

    def forward(
        self, proposals: Proposals, tokens: FeatureTokens, with_predictions: bool = False
    ) -> TokenScores:
        """Scores of all tokens of a batch.

        Args:
            proposals: Not used.
            tokens: The tokens.
            with_predictions: Not used: nothing is predicted.
        """
        # Half precision would give many tokens the same score, and the choice to chance.
        with torch.autocast(tokens.features.device.type, enabled=False):
            features = tokens.features.to(next(self.parameters()).dtype)
            logits: Tensor = self.network(features)
        return TokenScores(logits[..., 0])
