"""Mixed query selection: the best-scored tokens say where queries start, not what they hold.

Role in the flow: encoder -> **query selection** -> decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..heads import DetectionHeads
from ..structures import (
    DecoderQueries,
    EncoderOutput,
    FeatureTokens,
    Predictions,
    Targets,
    gather_rows,
)
from .denoising import ContrastiveDenoising
from .encoder_proposals import Proposals
from .first_stage import FirstStageQueries


class MixedQueries(FirstStageQueries):
    """Learned content, and as references the boxes of the tokens with the best class logit.

    The r-th best token gets the r-th learned content. The decoder makes the positions from the
    references.

    Args:
        hidden_dim: Channels C.
        num_queries: Queries Q.
        denoising: Prepends denoising queries while training; None for none.
        any_token_competes: See :class:`FirstStageQueries`.

    Source: DINO, section 3.4; released code for the initialisation. The first stage's loss is of
        the selected tokens alone.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_queries: int,
        denoising: ContrastiveDenoising | None = None,
        any_token_competes: bool = False,
    ) -> None:
        super().__init__(num_queries, True, any_token_competes)
        self.content = nn.Embedding(num_queries, hidden_dim)
        nn.init.xavier_uniform_(self.content.weight)
        self.denoising = denoising

    def forward(
        self,
        encoded: EncoderOutput,
        tokens: FeatureTokens,
        proposals: Proposals,
        heads: DetectionHeads,
        with_predictions: bool,
        targets: Sequence[Targets] | None = None,
    ) -> DecoderQueries:
        """Queries for a batch.

        Args:
            encoded: Output of the encoder.
            tokens: The tokens, for their padding.
            proposals: Box proposals of the tokens and their projection.
            heads: The detection heads, with a first stage.
            with_predictions: Keep the predictions for the selected tokens, for the loss.
            targets: Objects of the images, for denoising queries; None for none.
        """
        head, grid = heads.first_stage(), proposals.grid
        projected = proposals.project_memory(encoded)
        logits = head.logits(projected)
        indices = self._select(logits.detach(), tokens, grid)
        boxes = self._boxes(head, projected, grid, indices)
        first_stage = None
        if with_predictions:
            candidates = gather_rows(grid.is_proposal, indices)
            first_stage = Predictions(gather_rows(logits, indices), boxes, candidates)
        content: Tensor = self.content.weight[: indices.shape[1]].to(encoded.memory.dtype)
        queries = DecoderQueries(
            content=content.expand(len(indices), -1, -1),
            position=None,
            reference_points=boxes.detach(),
            first_stage=first_stage,
            token_indices=indices,
            query_mask=self._mask(tokens, indices),
        )
        if self.denoising is None or targets is None:
            return queries
        prepended: DecoderQueries = self.denoising(queries, targets)
        return prepended
