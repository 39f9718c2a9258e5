"""The decoder: queries attend to each other and to the memory."""

from .decoder_stack import Decoder, DecoderLayer
from .deformable_decoder import DeformableDecoder, DeformableDecoderLayer
from .dense_decoder import DenseDecoder, DenseDecoderLayer
from .reference_position import ReferencePosition
from .smca_decoder import SmcaDecoder, SmcaDecoderLayer

__all__ = [
    "Decoder",
    "DecoderLayer",
    "DeformableDecoder",
    "DeformableDecoderLayer",
    "DenseDecoder",
    "DenseDecoderLayer",
    "ReferencePosition",
    "SmcaDecoder",
    "SmcaDecoderLayer",
]
