"""The encoder: self-attention over all tokens, or over the kept ones only."""

from .auxiliary_heads import auxiliary_predictions
from .convolution_encoder import ConvolutionEncoder, ConvolutionEncoderLayer
from .deformable_encoder import DeformableEncoder, DeformableEncoderLayer
from .dense_encoder import DenseEncoder, DenseEncoderLayer
from .dual_attention_encoder import DualAttentionEncoder, DualAttentionEncoderLayer
from .encoder_stack import Encoder, EncoderLayer
from .intra_multi_encoder import IntraMultiEncoder, IntraMultiEncoderLayer

__all__ = [
    "ConvolutionEncoder",
    "ConvolutionEncoderLayer",
    "DeformableEncoder",
    "DeformableEncoderLayer",
    "DenseEncoder",
    "DenseEncoderLayer",
    "DualAttentionEncoder",
    "DualAttentionEncoderLayer",
    "Encoder",
    "EncoderLayer",
    "IntraMultiEncoder",
    "IntraMultiEncoderLayer",
    "auxiliary_predictions",
]
