"""The decoder: queries attend to each other and to the memory."""

from .decoder_stack import Decoder, DecoderLayer
from .deformable_decoder import DeformableDecoder, DeformableDecoderLayer
from .dense_decoder import DenseDecoder, DenseDecoderLayer

__all__ = [
    "Decoder",
    "DecoderLayer",
    "DeformableDecoder",
    "DeformableDecoderLayer",
    "DenseDecoder",
    "DenseDecoderLayer",
]
