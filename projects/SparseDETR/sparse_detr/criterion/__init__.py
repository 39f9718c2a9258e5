"""Losses of a training step."""

from .finite_check import NonFinitePredictionError, check_finite
from .set_criterion import CriterionOutput, SetCriterion, supervised_stages
from .token_scoring_loss import TokenScoringLoss

__all__ = [
    "CriterionOutput",
    "NonFinitePredictionError",
    "SetCriterion",
    "TokenScoringLoss",
    "check_finite",
    "supervised_stages",
]
