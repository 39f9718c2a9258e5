"""Where the decoder's queries come from."""

from .encoder_proposals import (
    ProposalGrid,
    ProposalProjection,
    Proposals,
    proposal_grid,
    top_tokens,
)
from .learned_queries import LearnedQueries
from .two_stage import TwoStageQueries

__all__ = [
    "LearnedQueries",
    "ProposalGrid",
    "ProposalProjection",
    "Proposals",
    "TwoStageQueries",
    "proposal_grid",
    "top_tokens",
]
