"""The scoring network: how much the decoder will look at each token.

Role in the flow: FeatureTokens -> **token scoring** -> token selection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers.initialization import xavier_matrices_
from .layers.precision import at_least_float32


class ScoringNetwork(nn.Module):
    """One logit per token, from the token and the mean of its image.

    Args:
        hidden_dim: Channels C, divisible by 4.
        average_over_padding: False takes the mean over the image's own tokens. True is the
            released behaviour: over all tokens of the padded map, so that the scores of an image
            depend on who shares its batch. On an image without padding both are the same.

    Source: Sparse DETR, section 3.3. As released, half of the channels are replaced by their mean
        over the tokens.
    """

    def __init__(self, hidden_dim: int, average_over_padding: bool = False) -> None:
        super().__init__()
        if hidden_dim % 4:
            raise ValueError(f"hidden_dim must be divisible by 4, got {hidden_dim}")
        self.average_over_padding = average_over_padding
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

    def forward(self, projected: Tensor, padding_mask: Tensor) -> Tensor:
        """Logits of all tokens.

        Args:
            projected: (B, N, C) tokens with position, through the proposal projection.
            padding_mask: (B, N) bool, True on padding.

        Returns:
            (B, N); values on padding mean nothing.
        """
        local, shared = self.embed(projected).chunk(2, dim=-1)
        if self.average_over_padding:
            mean = shared.mean(dim=1, keepdim=True)
        else:
            # In half precision the count would be rounded and the sum could overflow.
            own = (~padding_mask)[..., None].to(at_least_float32(shared.dtype))
            mean = (shared * own).sum(dim=1, keepdim=True) / own.sum(dim=1, keepdim=True)
            mean = mean.to(shared.dtype)
        features = torch.cat([local, mean.expand_as(shared)], dim=-1)
        logits: Tensor = self.score(features).squeeze(-1)
        return logits
