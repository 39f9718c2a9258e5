"""What query selections with a first stage have in common: which tokens become queries."""

from __future__ import annotations

from torch import Tensor, nn

from ..heads import DetectionHead
from ..structures import FeatureTokens, gather_rows
from .encoder_proposals import ProposalGrid, top_tokens


class FirstStageQueries(nn.Module):
    """Takes the Q tokens with the highest first-stage score.

    Args:
        num_queries: Queries Q.
        class_specific: Score by the best class logit; False scores by logit 0, "object".
        any_token_competes: False prefers real proposals over edge tokens, and those over padding.
            True is the released behaviour: tokens that are no proposal share one score and can
            become queries with the box (1, 1, 1, 1).
    """

    def __init__(self, num_queries: int, class_specific: bool, any_token_competes: bool) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.class_specific = class_specific
        self.any_token_competes = any_token_competes

    def _mask(self, tokens: FeatureTokens, indices: Tensor) -> Tensor | None:
        """False on rows that only fill up an image with too few tokens of its own."""
        if self.any_token_competes or min(tokens.valid_counts) >= indices.shape[1]:
            return None
        return ~tokens.padding_mask.gather(1, indices)

    def _select(self, logits: Tensor, tokens: FeatureTokens, grid: ProposalGrid) -> Tensor:
        """(B, Q) tokens, best first, from logits (B, N, num_classes) without gradient."""
        objectness = logits.amax(-1) if self.class_specific else logits[..., 0]
        if not self.any_token_competes:
            objectness = grid.rank_last(objectness, tokens.padding_mask)
        return top_tokens(objectness, min(self.num_queries, objectness.shape[1]))

    @staticmethod
    def _boxes(
        head: DetectionHead, projected: Tensor, grid: ProposalGrid, indices: Tensor
    ) -> Tensor:
        """(B, Q, 4) boxes of the selected tokens, from the projection (B, N, C) of all."""
        selected = gather_rows(projected, indices)
        return head.boxes_from_logits(selected, gather_rows(grid.box_logits, indices))
