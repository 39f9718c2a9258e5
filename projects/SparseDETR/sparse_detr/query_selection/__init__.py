"""Where the decoder's queries come from."""

from .denoising import ContrastiveDenoising
from .encoder_proposals import (
    ProposalGrid,
    ProposalProjection,
    Proposals,
    proposal_grid,
    top_tokens,
)
from .first_stage import FirstStageQueries
from .learned_queries import LearnedQueries
from .mixed import MixedQueries
from .two_stage import TwoStageQueries

__all__ = [
    "ContrastiveDenoising",
    "FirstStageQueries",
    "LearnedQueries",
    "MixedQueries",
    "ProposalGrid",
    "ProposalProjection",
    "Proposals",
    "TwoStageQueries",
    "proposal_grid",
    "top_tokens",
]
