"""Sparse DETR and its relatives for Detectron2."""

__version__ = "0.2.0"
