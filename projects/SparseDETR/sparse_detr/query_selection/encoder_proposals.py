"""Box proposals of the tokens, and the projection that their scores are read from.

Role in the flow: used by token scoring, by the encoder's auxiliary heads and by the two-stage
query selection.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers.precision import at_least_float32
from ..structures import FeatureTokens


@dataclass(frozen=True)
class ProposalGrid:
    """One box per token, centred on it.

    Attributes:
        box_logits: (B, N, 4) logits of cxcywh; +inf where the token is no proposal, so that the
            sigmoid gives the box (1, 1, 1, 1).
        is_proposal: (B, N) bool, False on padding and where a coordinate leaves (0.01, 0.99).
    """

    box_logits: Tensor
    is_proposal: Tensor

    def rank_last(self, scores: Tensor, padding_mask: Tensor) -> Tensor:
        """Scores with every token that is no proposal behind all that are.

        Such tokens share one score that says nothing about them.

        Args:
            scores: (B, N), without gradient.
            padding_mask: (B, N) bool; padding goes behind everything.

        Returns:
            (B, N).
        """
        scores = scores.to(at_least_float32(scores.dtype))  # in half, lowest - 1 may equal lowest
        lowest = scores.masked_fill(~self.is_proposal, float("inf")).amin(dim=1, keepdim=True)
        lowest = lowest.masked_fill(lowest.isinf(), 0)  # an image without any proposal
        scores = torch.where(self.is_proposal, scores, lowest - 1)
        return scores.masked_fill(padding_mask, float("-inf"))


def top_tokens(scores: Tensor, count: int) -> Tensor:
    """Indices of the highest scores; ties go to the earlier token.

    The order of an image's own tokens does not depend on its padding, so a tie is settled alike
    alone and in a batch.

    Args:
        scores: (B, N).
        count: Number K to take, at most N.

    Returns:
        (B, K) int64, highest score first.
    """
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]


def proposal_grid(tokens: FeatureTokens) -> ProposalGrid:
    """Proposals of all tokens: centre of the cell, side 0.05 * 2 ** level.

    Source: Deformable DETR, appendix A.4 (two-stage). As released, centres are normalised by the
        number of cells that the image covers, not by the image's size, so the grid of a coarse
        level is a few per cent off image coordinates.
    """
    centres, levels = tokens.cell_centres()
    centres = centres / tokens.valid_sizes.flip(-1)[:, levels]  # (B, N, 2)
    size = (0.05 * 2.0 ** levels.to(centres.dtype))[None, :, None].expand(len(centres), -1, 2)
    boxes = torch.cat([centres, size], dim=-1)
    inside = ((boxes > 0.01) & (boxes < 0.99)).all(-1) & ~tokens.padding_mask
    # Masked before the logarithm: a coordinate above 1 would otherwise pass through as NaN.
    boxes = boxes.masked_fill(~inside[..., None], 0.5)
    logits = torch.log(boxes / (1 - boxes)).masked_fill(~inside[..., None], float("inf"))
    return ProposalGrid(logits, inside)


class ProposalProjection(nn.Module):
    """Linear layer and norm over the proposals' tokens; all other tokens become one vector.

    Sparse DETR scores its tokens through the same weights that its first stage uses later, so the
    detector owns one instance and hands its output to both.

    Args:
        hidden_dim: Channels C.

    Source: Deformable DETR, appendix A.4; released code of Sparse DETR for the sharing.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(hidden_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        nn.init.xavier_uniform_(self.projection.weight)

    def forward(self, features: Tensor, is_proposal: Tensor) -> Tensor:
        """(B, N, C) projected features.

        Args:
            features: (B, N, C).
            is_proposal: (B, N) bool; other tokens enter as zero.
        """
        features = features.masked_fill(~is_proposal[..., None], 0)
        output: Tensor = self.norm(self.projection(features))
        return output


@dataclass(frozen=True)
class Proposals:
    """The proposals of a batch together with the projection that reads their scores.

    Attributes:
        grid: One box per token.
        projection: The projection, owned by the detector.
    """

    grid: ProposalGrid
    projection: ProposalProjection

    def project(self, features: Tensor) -> Tensor:
        """(B, N, C) projected features; see :class:`ProposalProjection`."""
        output: Tensor = self.projection(features, self.grid.is_proposal)
        return output
