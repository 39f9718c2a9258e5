"""How tokens are scored: the criterion by which the encoder's tokens are selected."""

from .objectness import ObjectnessScoring
from .random_scores import RandomScoring
from .scoring_network import ScoringNetwork

TokenScoring = ScoringNetwork | ObjectnessScoring | RandomScoring

__all__ = ["ObjectnessScoring", "RandomScoring", "ScoringNetwork", "TokenScoring"]
