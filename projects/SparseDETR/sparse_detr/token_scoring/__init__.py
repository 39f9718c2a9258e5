"""How tokens are scored: the criterion by which the encoder's tokens are selected."""

from .foreground import ForegroundScoring
from .objectness import ObjectnessScoring
from .poll_scoring import PollScoring
from .random_scores import RandomScoring
from .scoring_network import ScoringNetwork

TokenScoring = ScoringNetwork | ForegroundScoring | ObjectnessScoring | PollScoring | RandomScoring

__all__ = [
    "ForegroundScoring",
    "ObjectnessScoring",
    "PollScoring",
    "RandomScoring",
    "ScoringNetwork",
    "TokenScoring",
]
