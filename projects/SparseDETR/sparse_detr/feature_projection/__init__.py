"""From the backbone's maps to tokens."""

from .multi_scale import MultiScaleProjection
from .position_embedding import PositionEmbedding, padding_mask

__all__ = ["MultiScaleProjection", "PositionEmbedding", "padding_mask"]
