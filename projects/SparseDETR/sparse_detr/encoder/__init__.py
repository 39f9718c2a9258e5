"""The encoder: self-attention over all tokens, or over the kept ones only."""

from .auxiliary_heads import auxiliary_predictions
from .deformable_encoder import DeformableEncoder, DeformableEncoderLayer
from .dense_encoder import DenseEncoder, DenseEncoderLayer
from .encoder_stack import Encoder, EncoderLayer

__all__ = [
    "DeformableEncoder",
    "DeformableEncoderLayer",
    "DenseEncoder",
    "DenseEncoderLayer",
    "Encoder",
    "EncoderLayer",
    "auxiliary_predictions",
]
