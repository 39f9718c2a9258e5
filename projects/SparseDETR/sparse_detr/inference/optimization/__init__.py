"""Making a trained detector faster without changing what it detects."""

from .detector import OptimizedDetector
from .optimize import PRECISIONS, Precision, optimize_for_inference

__all__ = ["PRECISIONS", "OptimizedDetector", "Precision", "optimize_for_inference"]
