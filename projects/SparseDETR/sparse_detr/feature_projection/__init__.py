"""From the backbone's maps to tokens."""

from .learned_position import LearnedPositionEmbedding
from .multi_scale import MultiScaleProjection
from .position_embedding import PositionEmbedding

__all__ = ["LearnedPositionEmbedding", "MultiScaleProjection", "PositionEmbedding"]
