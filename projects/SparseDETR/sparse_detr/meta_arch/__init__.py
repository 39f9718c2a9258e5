"""The meta-architecture and its registration with Detectron2."""

from .registration import SparseDETR
from .transformer_detector import TransformerDetector

__all__ = ["SparseDETR", "TransformerDetector"]
