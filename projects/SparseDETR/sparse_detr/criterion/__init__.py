"""Losses of a training step."""

from .corr import CorrLog
from .finite_check import NonFinitePredictionError, check_finite
from .set_criterion import CriterionOutput, SetCriterion, supervised_stages
from .token_scoring_loss import TokenScoringLoss

__all__ = [
    "CorrLog",
    "CriterionOutput",
    "NonFinitePredictionError",
    "SetCriterion",
    "TokenScoringLoss",
    "check_finite",
    "supervised_stages",
]
