"""Foreground scores: what is an object, told from the coarsest level down to the finest.

Role in the flow: FeatureTokens -> **token scoring** -> token selection.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.activation_checkpoint import run_layer
from ..layers.precision import at_least_float32
from ..query_selection.encoder_proposals import Proposals
from ..structures import FeatureTokens, Size, TokenScores
from .scoring_network import ScoringNetwork


class ForegroundScoring(nn.Module):
    """One logit per token from a network that all levels share, each led by the coarser one.

    The scores of a level, resized to the next finer one, scale the tokens there before they are
    scored, each level with a learnt factor.

    Args:
        hidden_dim: Channels C, divisible by 4.
        num_levels: Levels L, at least 2.
        average_over_padding: False reads nothing from padding: means are taken over the image's
            own tokens, and what is resized is the part of a map that the image covers. True is
            the released behaviour: whole padded maps, so that the scores of an image depend on who
            shares its batch. On an image without padding both are the same.
        checkpoint_activations: See :class:`ScoringNetwork`.

    Attributes:
        reads_projection: Whether the scores are read from the proposal projection.

    Source: Focus-DETR, section 3.2, equation 2. As released, logits are handed down, without a
        sigmoid, and the network is that of Sparse DETR with the mean over one level.
    """

    reads_projection = True

    def __init__(
        self,
        hidden_dim: int,
        num_levels: int,
        average_over_padding: bool = False,
        checkpoint_activations: bool = True,
    ) -> None:
        super().__init__()
        if num_levels < 2:
            raise ValueError(
                f"num_levels must be at least 2 for foreground scores, got {num_levels}"
            )
        self.average_over_padding = average_over_padding
        self.checkpoint_activations = checkpoint_activations
        self.network = ScoringNetwork(hidden_dim, average_over_padding, False)
        # Coarsest pair of levels first.
        self.alpha = nn.Parameter(torch.empty(num_levels - 1).uniform_(-0.3, 0.3))

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
            return self.logits(proposals.project_positioned(tokens), tokens)

        logits: Tensor = run_layer(score, self.checkpoint_activations and torch.is_grad_enabled())
        return TokenScores(logits)

    def logits(self, projected: Tensor, tokens: FeatureTokens) -> Tensor:
        """Logits of all tokens from their projection.

        Args:
            projected: (B, N, C) tokens with position, through the proposal projection.
            tokens: The tokens, for their levels and padding.

        Returns:
            (B, N); values on padding mean nothing.
        """
        sizes = [height * width for height, width in tokens.spatial_shapes]
        levels = projected.split_with_sizes(sizes, dim=1)
        mask = tokens.key_padding_mask
        masks = [None] * len(sizes) if mask is None else mask.split_with_sizes(sizes, dim=1)
        scores: list[Tensor] = []
        for level in reversed(range(len(sizes))):
            rows = levels[level]
            if scores:
                factor = self.alpha[len(scores) - 1]
                lead = self.resized(scores[-1], level, tokens)
                rows = rows * (1 + factor * lead[..., None])
            logits = self.network.logits(rows, masks[level])
            scores.append(logits.to(at_least_float32(logits.dtype)))
        return torch.cat(scores[::-1], dim=1)

    def resized(self, scores: Tensor, level: int, tokens: FeatureTokens) -> Tensor:
        """(B, H_l * W_l) scores of the next coarser level on the cells of ``level``."""
        coarse, fine = tokens.spatial_shapes[level + 1], tokens.spatial_shapes[level]
        maps = scores.reshape(-1, 1, *coarse)
        if self.average_over_padding or not tokens.geometry.is_padded:
            return _upsampled(maps, fine).flatten(1)
        resized = []
        for image, covered in zip(maps, tokens.geometry.covered, strict=True):
            (rows, columns), (height, width) = covered[level + 1], covered[level]
            own = _upsampled(image[None, :, :rows, :columns], (height, width))
            resized.append(F.pad(own, (0, fine[1] - width, 0, fine[0] - height)))
        return torch.cat(resized).flatten(1)


def _upsampled(maps: Tensor, size: Size) -> Tensor:
    """(B, 1, height, width) maps whose corner cells keep their values."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)
