"""The meta-architecture and its registration with Detectron2."""

from .transformer_detector import TransformerDetector

__all__ = ["TransformerDetector"]
