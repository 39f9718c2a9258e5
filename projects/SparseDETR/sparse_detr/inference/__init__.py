"""Using a trained detector: building it with its weights, making it faster, looking at its work."""

from .inspection import InspectedImage, inspect_image, level_strides
from .model_building import build_model_for_inference
from .optimization import OptimizedDetector, optimize_for_inference

__all__ = [
    "InspectedImage",
    "OptimizedDetector",
    "build_model_for_inference",
    "inspect_image",
    "level_strides",
    "optimize_for_inference",
]
