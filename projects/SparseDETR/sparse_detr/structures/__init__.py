"""Typed data that the stages of the flow hand to each other."""

from .feature_maps import FeatureMaps, Size, valid_cells
from .feature_tokens import FeatureTokens
from .image_batch import ImageBatch, PaddedImages
from .predictions import Predictions, TokenScores
from .row_access import gather_rows
from .shape_cache import ShapeCache, is_plain
from .stage_outputs import (
    DecoderOutput,
    DecoderQueries,
    DetectorOutput,
    EncoderOutput,
    Sampling,
)
from .targets import Targets
from .token_geometry import TokenGeometry
from .token_positions import SineTables, TokenPositions
from .token_selection import KeptTokens, RowWriter, TokenSelection

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
    "RowWriter",
    "Sampling",
    "ShapeCache",
    "SineTables",
    "Size",
    "Targets",
    "TokenGeometry",
    "TokenPositions",
    "TokenScores",
    "TokenSelection",
    "gather_rows",
    "is_plain",
    "valid_cells",
]
