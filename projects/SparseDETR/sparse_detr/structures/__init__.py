"""Typed data that the stages of the flow hand to each other."""

from .denoising import DenoisingRows
from .feature_maps import FeatureMaps, Size, valid_cells
from .feature_tokens import FeatureTokens
from .image_batch import ImageBatch, PaddedImages
from .memory_tokens import MemoryTokens
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
from .token_positions import PositionTables, TokenPositions
from .token_selection import KeptTokens, RowWriter, TokenSelection

__all__ = [
    "DecoderOutput",
    "DecoderQueries",
    "DenoisingRows",
    "DetectorOutput",
    "EncoderOutput",
    "FeatureMaps",
    "FeatureTokens",
    "ImageBatch",
    "KeptTokens",
    "MemoryTokens",
    "PaddedImages",
    "PositionTables",
    "Predictions",
    "RowWriter",
    "Sampling",
    "ShapeCache",
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
