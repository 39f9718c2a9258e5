"""Using a trained detector: building it with its weights, making it faster, looking at its work."""

from .class_table import ClassTable
from .detections import Detections
from .image_input import ImageInput, read_rgb
from .inspection import InspectedImage, inspect_image, level_strides
from .model_building import build_model_for_inference
from .optimization import OptimizedDetector, optimize_for_inference
from .predictor import Predictor

__all__ = [
    "ClassTable",
    "Detections",
    "ImageInput",
    "InspectedImage",
    "OptimizedDetector",
    "Predictor",
    "build_model_for_inference",
    "inspect_image",
    "level_strides",
    "optimize_for_inference",
    "read_rgb",
]
