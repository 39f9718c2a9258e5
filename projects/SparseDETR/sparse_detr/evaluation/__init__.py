"""What an evaluation says beyond AP: which tokens were kept, and whether the right ones were."""

from .sparsity_evaluator import SparsityEvaluator
from .token_use import TokenUse, WithTokenUse

__all__ = ["SparsityEvaluator", "TokenUse", "WithTokenUse"]
