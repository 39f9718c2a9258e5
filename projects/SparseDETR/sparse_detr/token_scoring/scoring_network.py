"""The scoring network: how much the decoder will look at each token (the DAM criterion).

Role in the flow: FeatureTokens -> **token scoring** -> token selection.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.activation_checkpoint import run_layer
from ..layers.initialization import xavier_matrices_
from ..layers.precision import at_least_float32
from ..query_selection.encoder_proposals import Proposals
from ..structures import FeatureTokens, TokenScores


class ScoringNetwork(nn.Module):
    """One logit per token, from the token and the mean of its image.

    Args:
        hidden_dim: Channels C, divisible by 4.
        average_over_padding: False takes the mean over the image's own tokens. True is the
            released behaviour: over all tokens of the padded map, so that the scores of an image
            depend on who shares its batch. On an image without padding both are the same.
        checkpoint_activations: Compute the activations of all tokens again in the backward pass
            (about 1 % of a training step) instead of keeping them: for every token they are some
            14 rows of C channels.

    Attributes:
        reads_projection: Whether the scores are read from the proposal projection.

    Source: Sparse DETR, section 3.3. As released, half of the channels are replaced by their mean
        over the tokens.
    """

    reads_projection = True

    def __init__(
        self,
        hidden_dim: int,
        average_over_padding: bool = False,
        checkpoint_activations: bool = True,
    ) -> None:
        super().__init__()
        if hidden_dim % 4:
            raise ValueError(f"hidden_dim must be divisible by 4, got {hidden_dim}")
        self.average_over_padding = average_over_padding
        self.checkpoint_activations = checkpoint_activations
        half, quarter = hidden_dim // 2, hidden_dim // 4
        self.embed = nn.Sequential(
            nn.LayerNorm(hidden_dim), nn.Linear(hidden_dim, hidden_dim), nn.GELU()
        )
        self.score = nn.Sequential(
            nn.Linear(hidden_dim, half),
            nn.GELU(),
            nn.Linear(half, quarter),
            nn.GELU(),
            nn.Linear(quarter, 1),
        )
        xavier_matrices_(self)

    def forward(
        self, proposals: Proposals, tokens: FeatureTokens, with_predictions: bool = False
    ) -> TokenScores:
        """Scores of all tokens of a batch.

        Args:
            proposals: Their proposals and the projection that the scores are read from.
            tokens: The tokens.
            with_predictions: Not used: the network predicts no objects.
        """

        def score() -> Tensor:
            return self.logits(proposals.project_positioned(tokens), tokens.key_padding_mask)

        logits: Tensor = run_layer(score, self.checkpoint_activations and torch.is_grad_enabled())
        return TokenScores(logits)

    def logits(self, projected: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of all tokens from their projection.

        Args:
            projected: (B, N, C) tokens with position, through the proposal projection.
            padding_mask: (B, N) bool, True on padding; None where no token is padding.

        Returns:
            (B, N); values on padding mean nothing.
        """
        local, shared = self.embed(projected).chunk(2, dim=-1)
        if self.average_over_padding or padding_mask is None:
            mean = shared.mean(dim=1, keepdim=True)
        else:
            # In half precision the count would be rounded and the sum could overflow.
            own = (~padding_mask)[..., None].to(at_least_float32(shared.dtype))
            mean = (shared * own).sum(dim=1, keepdim=True) / own.sum(dim=1, keepdim=True)
            mean = mean.to(shared.dtype)
        first = self.score[0]
        assert isinstance(first, nn.Linear)
        # The mean is the same for all tokens of an image: its part of the product is taken once.
        of_local, of_mean = first.weight.chunk(2, dim=-1)
        hidden = F.linear(local, of_local) + F.linear(mean, of_mean, first.bias)
        for index in range(1, len(self.score)):
            hidden = self.score[index](hidden)
        return hidden.squeeze(-1)
