"""Losses of a training step."""

from .corr import CorrLog
from .finite_check import NonFinitePredictionError, check_finite
from .foreground_loss import ForegroundLoss, foreground_labels
from .poll_regularisation import PollRegularisation
from .set_criterion import CriterionOutput, SetCriterion, supervised_stages
from .token_scoring_loss import TokenScoringLoss

__all__ = [
    "CorrLog",
    "CriterionOutput",
    "ForegroundLoss",
    "NonFinitePredictionError",
    "PollRegularisation",
    "SetCriterion",
    "TokenScoringLoss",
    "check_finite",
    "foreground_labels",
    "supervised_stages",
]
