"""Two-stage query selection: the best-scored tokens of the memory become queries.

Role in the flow: encoder -> **query selection** -> decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..heads import DetectionHeads
from ..layers.precision import at_least_float32
from ..layers.sine_encoding import sine_features
from ..structures import (
    DecoderQueries,
    EncoderOutput,
    FeatureTokens,
    Predictions,
    Targets,
    gather_rows,
)
from .encoder_proposals import Proposals
from .first_stage import FirstStageQueries


class TwoStageQueries(FirstStageQueries):
    """Takes the Q tokens with the highest first-stage score; their boxes are the references.

    Args:
        hidden_dim: Channels C.
        num_queries: Queries Q.
        class_specific: Score by the best class logit and train the first stage on the true
            labels (Efficient DETR, Sparse DETR). False scores by logit 0, "object" (Deformable
            DETR).
        content_from_memory: The content of a query is the memory of its token (Efficient DETR,
            Sparse DETR). False makes it from the position of the box (Deformable DETR).
        any_token_competes: See :class:`FirstStageQueries`.

    Source: Deformable DETR, section 4.2 and appendix A.4; Efficient DETR, section 4.2; Sparse
        DETR, section 3.4.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_queries: int,
        class_specific: bool = True,
        content_from_memory: bool = True,
        any_token_competes: bool = False,
    ) -> None:
        super().__init__(num_queries, class_specific, any_token_competes)
        if hidden_dim % 4:
            raise ValueError(f"hidden_dim must be divisible by 4, got {hidden_dim}")
        self.content_from_memory = content_from_memory
        out_dim = hidden_dim if content_from_memory else 2 * hidden_dim
        self.position_projection = nn.Linear(2 * hidden_dim, out_dim)
        self.position_norm = nn.LayerNorm(out_dim)
        nn.init.xavier_uniform_(self.position_projection.weight)

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
            with_predictions: Keep the predictions for all tokens (for the loss); otherwise boxes
                are computed for the selected tokens only.
            targets: Not used: no denoising queries are made.
        """
        memory, head, grid = encoded.memory, heads.first_stage(), proposals.grid
        projected = proposals.project_memory(encoded)
        logits = head.logits(projected)
        indices = self._select(logits.detach(), tokens, grid)
        first_stage = None
        if with_predictions:
            boxes = head.boxes_from_logits(projected, grid.box_logits)
            first_stage = Predictions(logits, boxes, grid.is_proposal, not self.class_specific)
            reference = gather_rows(boxes, indices).detach()
        else:
            reference = self._boxes(head, projected, grid, indices).detach()
        position, content = self._embed(reference, memory.dtype)
        if self.content_from_memory:
            content = gather_rows(memory, indices)
        mask = self._mask(tokens, indices)
        return DecoderQueries(content, position, reference, first_stage, indices, mask)

    def _embed(self, reference: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Position and content (B, Q, C) from boxes (B, Q, 4); the content may go unused."""
        angles = reference.to(at_least_float32(dtype)) * (2 * math.pi)
        features = sine_features(angles, self.position_projection.in_features // 4).flatten(-2)
        embedded = self.position_norm(self.position_projection(features.to(dtype)))
        if self.content_from_memory:
            return embedded, embedded
        position, content = embedded.chunk(2, dim=-1)
        return position, content
