"""Two-stage query selection: the best-scored tokens of the memory become queries.

Role in the flow: encoder -> **query selection** -> decoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..heads import DetectionHead, DetectionHeads
from ..layers.precision import at_least_float32
from ..layers.sine_encoding import sine_features
from ..structures import DecoderQueries, EncoderOutput, FeatureTokens, Predictions, gather_rows
from .encoder_proposals import ProposalGrid, Proposals, top_tokens


class TwoStageQueries(nn.Module):
    """Takes the Q tokens with the highest first-stage score; their boxes are the references.

    Args:
        hidden_dim: Channels C.
        num_queries: Queries Q.
        class_specific: Score by the best class logit and train the first stage on the true
            labels (Efficient DETR, Sparse DETR). False scores by logit 0, "object" (Deformable
            DETR).
        content_from_memory: The content of a query is the memory of its token (Efficient DETR,
            Sparse DETR). False makes it from the position of the box (Deformable DETR).
        any_token_competes: False prefers real proposals over edge tokens, and those over padding.
            True is the released behaviour: tokens that are no proposal share one score and can
            become queries with the box (1, 1, 1, 1).

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
        super().__init__()
        if hidden_dim % 4:
            raise ValueError(f"hidden_dim must be divisible by 4, got {hidden_dim}")
        self.num_queries = num_queries
        self.class_specific = class_specific
        self.content_from_memory = content_from_memory
        self.any_token_competes = any_token_competes
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
    ) -> DecoderQueries:
        """Queries for a batch.

        Args:
            encoded: Output of the encoder.
            tokens: The tokens, for their padding.
            proposals: Box proposals of the tokens and their projection.
            heads: The detection heads, with a first stage.
            with_predictions: Keep the predictions for all tokens (for the loss); otherwise boxes
                are computed for the selected tokens only.
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
            reference = self._boxes(head, projected, grid, indices)
        position, content = self._embed(reference, memory.dtype)
        if self.content_from_memory:
            content = gather_rows(memory, indices)
        mask = self._mask(tokens, indices)
        return DecoderQueries(content, position, reference, first_stage, indices, mask)

    def _mask(self, tokens: FeatureTokens, indices: Tensor) -> Tensor | None:
        """False on rows that only fill up an image with too few tokens of its own."""
        if self.any_token_competes or min(tokens.valid_counts) >= indices.shape[1]:
            return None
        return ~tokens.padding_mask.gather(1, indices)

    def _select(self, logits: Tensor, tokens: FeatureTokens, grid: ProposalGrid) -> Tensor:
        objectness = logits.amax(-1) if self.class_specific else logits[..., 0]
        if not self.any_token_competes:
            objectness = grid.rank_last(objectness, tokens.padding_mask)
        return top_tokens(objectness, min(self.num_queries, objectness.shape[1]))

    @staticmethod
    def _boxes(
        head: DetectionHead, projected: Tensor, grid: ProposalGrid, indices: Tensor
    ) -> Tensor:
        selected = gather_rows(projected, indices)
        return head.boxes_from_logits(selected, gather_rows(grid.box_logits, indices)).detach()

    def _embed(self, reference: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Position and content (B, Q, C) from boxes (B, Q, 4); the content may go unused."""
        angles = reference.to(at_least_float32(dtype)) * (2 * math.pi)
        features = sine_features(angles, self.position_projection.in_features // 4).flatten(-2)
        embedded = self.position_norm(self.position_projection(features.to(dtype)))
        if self.content_from_memory:
            return embedded, embedded
        position, content = embedded.chunk(2, dim=-1)
        return position, content
