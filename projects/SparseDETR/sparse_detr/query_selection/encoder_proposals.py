"""Box proposals of the tokens, and the projection that their scores are read from.

Role in the flow: used by token scoring, by the encoder's auxiliary heads and by the two-stage
query selection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..layers.precision import at_least_float32
from ..structures import EncoderOutput, FeatureTokens


@dataclass(frozen=True)
class ProposalGrid:
    """One box per token, centred on it.

    Attributes:
        box_logits: (B, N, 4) logits of cxcywh; +inf where the token is no proposal, so that the
            sigmoid gives the box (1, 1, 1, 1).
        is_proposal: (B, N) bool, False on padding and where a coordinate leaves (0.01, 0.99).
        others: (M,) int64, the tokens that are no proposal among the (B * N) of all images; None
            where their number is not known.
    """

    box_logits: Tensor
    is_proposal: Tensor
    others: Tensor | None = None

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
    if scores.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
    # The same order without sorting all tokens: score and place in one integer, no two of which
    # are equal. Read as integers, negative floats ascend the wrong way; NaN is the highest.
    scores = scores.float()
    bits = scores.masked_fill(scores == 0, 0).view(torch.int32)  # -0.0 equals 0.0
    rank = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).masked_fill(scores.isnan(), 0x7FFFFFFF)
    last = scores.shape[1] - 1
    from_the_end = last - torch.arange(last + 1, device=scores.device)
    best = ((rank.long() << 32) | from_the_end).topk(count, dim=1).values
    return last - (best & 0xFFFFFFFF)


def proposal_grid(tokens: FeatureTokens) -> ProposalGrid:
    """Proposals of all tokens: centre of the cell, side 0.05 * 2 ** level.

    Source: Deformable DETR, appendix A.4 (two-stage). As released, centres are normalised by the
        number of cells that the image covers, not by the image's size, so the grid of a coarse
        level is a few per cent off image coordinates.
    """
    return ProposalGrid(*tokens.geometry.proposals)


class ProposalProjection(nn.Module):
    """Linear layer and norm over the proposals' tokens; all other tokens become one vector.

    Sparse DETR scores its tokens through the same weights that its first stage uses later, so the
    detector owns one instance and hands its output to both.

    Args:
        hidden_dim: Channels C.

    Source: Deformable DETR, appendix A.4; released code of Sparse DETR for the sharing. There the
        other tokens enter as zero; here they leave as what zero would become.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(hidden_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        nn.init.xavier_uniform_(self.projection.weight)

    def forward(self, features: Tensor, grid: ProposalGrid) -> Tensor:
        """(B, N, C) projected features.

        Args:
            features: (B, N, C).
            grid: Says which tokens are proposals.
        """
        output: Tensor = self.norm(self.linear(features, grid))
        return output

    def linear(self, features: Tensor, grid: ProposalGrid) -> Tensor:
        """(B, N, C) the linear layer's part of the projection; see :meth:`forward`."""
        return self.levelled(self.projection(features), grid)

    def levelled(self, linear: Tensor, grid: ProposalGrid) -> Tensor:
        """The same with one vector for all tokens that are no proposals.

        Before the norm, so that no gradient of it is spoiled by what stands on padding.

        Args:
            linear: (B, N, C) output of the linear layer; is written to where that is possible.
            grid: Says which tokens are proposals.
        """
        nothing: Tensor = self.projection.bias.to(linear.dtype)
        if grid.others is None:
            return torch.where(grid.is_proposal[..., None], linear, nothing)
        if len(grid.others):
            rows = linear.view(-1, linear.shape[-1])
            rows.index_copy_(0, grid.others, nothing.expand(len(grid.others), -1))
        return linear


@dataclass(frozen=True)
class Proposals:
    """The proposals of a batch together with the projection that reads their scores.

    Attributes:
        grid: One box per token.
        projection: The projection, owned by the detector; None where nothing reads it.
        linear: (B, N, C) the linear part of the projection of the tokens' features; token scoring
            and first stage both start from it. None where no score is read from it.
    """

    grid: ProposalGrid
    projection: ProposalProjection | None
    linear: Tensor | None = None

    @staticmethod
    def of(tokens: FeatureTokens, projection: ProposalProjection | None, scored: bool) -> Proposals:
        """The proposals of a batch.

        Args:
            tokens: The tokens.
            projection: The projection, or None where nothing reads it.
            scored: Whether token scores are going to be read from the projection.
        """
        proposals = Proposals(proposal_grid(tokens), projection)
        if not scored:
            return proposals
        linear = proposals.required.linear(tokens.features, proposals.grid)
        return replace(proposals, linear=linear)

    @property
    def required(self) -> ProposalProjection:
        """The projection, for those that cannot do without."""
        assert self.projection is not None, "the detector checks that it is given"
        return self.projection

    def project_positioned(self, tokens: FeatureTokens) -> Tensor:
        """(B, N, C) projection of the tokens' features with position, for token scoring."""
        if self.linear is None:
            return self._project(tokens.features + tokens.position)
        projection = self.required
        of_position = tokens.positions.projected(projection.projection.weight)
        sizes = [height * width for height, width in tokens.spatial_shapes]
        levels = zip(self.linear.split_with_sizes(sizes, dim=1), of_position, strict=True)
        linear = torch.cat([level + p.flatten(1, 2) for level, p in levels], dim=1)
        output: Tensor = projection.norm(projection.levelled(linear, self.grid))
        return output

    def project_memory(self, encoded: EncoderOutput) -> Tensor:
        """(B, N, C) projection of the memory, for the first stage."""
        if self.linear is None or encoded.kept is None:
            return self._project(encoded.memory)
        # All other tokens left the encoder as they came: their product is at hand.
        kept, projection = encoded.kept, self.required
        own = ProposalGrid(self.grid.box_logits, kept.gather(self.grid.is_proposal))
        rows = projection.norm(projection.linear(kept.gather(encoded.memory), own))
        # The norm's backward pass does not need its output: rows may be replaced there.
        projected: Tensor = projection.norm(self.linear.flatten(0, 1)).view(encoded.memory.shape)
        kept.writer(encoded.memory.shape[1]).write_(projected, rows)
        return projected

    def _project(self, features: Tensor) -> Tensor:
        output: Tensor = self.required(features, self.grid)
        return output
