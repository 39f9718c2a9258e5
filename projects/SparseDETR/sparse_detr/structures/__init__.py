"""Typed data that the stages of the flow hand to each other."""

from .feature_maps import FeatureMaps, Size, valid_cells
from .feature_tokens import FeatureTokens
from .image_batch import ImageBatch, PaddedImages
from .predictions import (
    DecoderOutput,
    DecoderQueries,
    DetectorOutput,
    EncoderOutput,
    Predictions,
    Sampling,
)
from .targets import Targets
from .token_selection import KeptTokens, TokenSelection, gather_rows

__all__ = [
    "DecoderOutput",
    "DecoderQueries",
    "DetectorOutput",
    "EncoderOutput",
    "FeatureMaps",
    "FeatureTokens",
    "ImageBatch",
    "KeptTokens",
    "PaddedImages",
    "Predictions",
    "Sampling",
    "Size",
    "Targets",
    "TokenSelection",
    "gather_rows",
    "valid_cells",
]
