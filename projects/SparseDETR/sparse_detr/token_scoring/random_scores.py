"""Random scores: what a selection is worth that knows nothing.

Role in the flow: FeatureTokens -> **token scoring** -> token selection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..query_selection.encoder_proposals import Proposals
from ..structures import FeatureTokens, ShapeCache, TokenScores, is_plain

# No logit is infinite: that is the score of padding.
_LEAST = 1e-6


class RandomScoring(nn.Module):
    """Logits of numbers drawn evenly between 0 and 1; no weights.

    In training they are drawn anew for every image, from torch's generator of the device, which a
    run seeds and a checkpoint keeps. In evaluation the scores of an image depend on the seed and
    on the sizes of its levels alone: they are the same in every pass, on every device, and alone
    as in a batch.

    Args:
        seed: Of the scores in evaluation.

    Attributes:
        reads_projection: Whether the scores are read from the proposal projection.

    Source: Sparse DETR, section 4.3 (the random baseline of its figure 4).
    """

    reads_projection = False

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._scores: ShapeCache[Tensor] = ShapeCache()

    def forward(
        self, proposals: Proposals, tokens: FeatureTokens, with_predictions: bool = False
    ) -> TokenScores:
        """Scores of all tokens of a batch.

        Args:
            proposals: Not used.
            tokens: The tokens; give number, padding, device and type of the scores.
            with_predictions: Not used: nothing is predicted.
        """
        geometry = tokens.geometry
        if self.training:
            shape = tokens.features.shape[:2]
            even = torch.rand(shape, dtype=geometry.dtype, device=geometry.device)
            return TokenScores(even.logit(_LEAST))
        if not is_plain(tokens.features):
            return TokenScores(self._fixed(tokens))
        key = (self.seed, geometry.spatial_shapes, geometry.covered)
        scores = self._scores.get(
            (*key, geometry.device, geometry.dtype), lambda: self._fixed(tokens)
        )
        return TokenScores(scores)

    def _fixed(self, tokens: FeatureTokens) -> Tensor:
        """(B, N) scores in evaluation; zero on padding."""
        draws = [
            # An image's own tokens come in the same order whatever pads it.
            torch.rand(count, generator=torch.Generator().manual_seed(self.seed))
            for count in tokens.valid_counts
        ]
        own = torch.cat(draws).to(tokens.geometry.device, tokens.geometry.dtype).logit(_LEAST)
        scores = own.new_zeros(tokens.padding_mask.shape)
        return scores.masked_scatter(~tokens.padding_mask, own)
