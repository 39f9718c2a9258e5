"""From the backbone's maps to tokens."""

from .multi_scale import MultiScaleProjection
from .position_embedding import PositionEmbedding

__all__ = ["MultiScaleProjection", "PositionEmbedding"]
