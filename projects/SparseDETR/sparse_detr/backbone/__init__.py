"""Backbones: batched images to feature maps at strides 8, 16 and 32, read by name.

ResNets, the small and the dilated one too, are Detectron2's own class; Swin is built here on
torchvision's.
"""

from .dilated_resnet import make_dilated_stages
from .imagenet_weights import WeightReport, fill_backbone, load_imagenet_weights
from .small_resnet import make_basic_stages
from .swin import SwinBackbone

__all__ = [
    "SwinBackbone",
    "WeightReport",
    "fill_backbone",
    "load_imagenet_weights",
    "make_basic_stages",
    "make_dilated_stages",
]
