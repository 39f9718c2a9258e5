"""Selection of the tokens that the encoder updates, and how many they are.

Role in the flow: token scoring -> **token selection** -> encoder.
"""

from .budgets import GflopBudget, LatencyBudget
from .cascade import Cascade
from .keep_ratio import (
    KeepRatio,
    PerLayer,
    PerLevel,
    ScoreMass,
    Uniform,
    check_keep_ratio,
    kept_count,
)
from .poll_and_pool import PollAndPool, polled_counts
from .ranked_tokens import RankedTokens
from .selection import TopRhoSelection
from .text_forms import KeepRatioLike, as_keep_ratio

TokenSelector = TopRhoSelection | PollAndPool

__all__ = [
    "Cascade",
    "GflopBudget",
    "KeepRatio",
    "KeepRatioLike",
    "LatencyBudget",
    "PerLayer",
    "PerLevel",
    "PollAndPool",
    "RankedTokens",
    "ScoreMass",
    "TokenSelector",
    "TopRhoSelection",
    "Uniform",
    "as_keep_ratio",
    "check_keep_ratio",
    "kept_count",
    "polled_counts",
]
