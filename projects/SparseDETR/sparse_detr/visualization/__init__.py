"""Pictures: predictions beside the ground truth, kept tokens over the image, curves of a run."""

from .curves import draw_curves, read_metrics
from .kept_tokens import KeptLevel, draw_kept_tokens, kept_levels
from .pictures import PictureOptions, write_pictures
from .predictions import annotations_as_instances, draw_predictions

__all__ = [
    "KeptLevel",
    "PictureOptions",
    "annotations_as_instances",
    "draw_curves",
    "draw_kept_tokens",
    "draw_predictions",
    "kept_levels",
    "read_metrics",
    "write_pictures",
]
