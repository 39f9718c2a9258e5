"""Learned queries: content and position are parameters (single stage).

Role in the flow: encoder -> **query selection** -> decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..heads import DetectionHeads
from ..structures import DecoderQueries, EncoderOutput, FeatureTokens, Targets
from .encoder_proposals import Proposals


class LearnedQueries(nn.Module):
    """The same queries for every image; reference points are read from their position.

    Args:
        hidden_dim: Channels C.
        num_queries: Queries Q.
        learned_content: False starts from content zero, as DETR does: only the position is learnt.
        with_references: False gives no reference points, as DETR does: boxes start from nothing.

    Source: Deformable DETR, section 4.1; DETR, section 3.2.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_queries: int,
        learned_content: bool = True,
        with_references: bool = True,
    ) -> None:
        super().__init__()
        self.query_embed = nn.Embedding(num_queries, (1 + int(learned_content)) * hidden_dim)
        self.hidden_dim = hidden_dim
        self.reference_points: nn.Linear | None = None
        if not with_references:
            return
        self.reference_points = nn.Linear(hidden_dim, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)

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
            encoded: Output of the encoder; gives the batch size only.
            tokens: Not used: the queries do not depend on the image.
            proposals: Not used.
            heads: Not used.
            with_predictions: Not used: there is no first stage.
            targets: Not used: no denoising queries are made.
        """
        position = self.query_embed.weight[:, : self.hidden_dim]
        content = self.query_embed.weight[:, self.hidden_dim :]
        if not content.shape[1]:
            content = torch.zeros_like(position)
        memory, reference = encoded.memory, None
        batch = len(memory)
        if self.reference_points is not None:
            # Half precision would round where the decoder looks.
            with torch.autocast(memory.device.type, enabled=False):
                reference = self.reference_points(position).sigmoid().expand(batch, -1, -1)
        return DecoderQueries(
            content=content.expand(batch, -1, -1),
            position=position.expand(batch, -1, -1),
            reference_points=reference,
        )
