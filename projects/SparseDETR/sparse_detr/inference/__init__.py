"""Using a trained detector: building it with its weights, and looking at what it did."""

from .inspection import InspectedImage, inspect_image, level_strides
from .model_building import build_model_for_inference

__all__ = ["InspectedImage", "build_model_for_inference", "inspect_image", "level_strides"]
