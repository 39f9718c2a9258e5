"""ResNet-50 whose last stage dilates instead of halving the map; frozen like the plain one."""

from detectron2.config import LazyCall as L

from sparse_detr.backbone import make_dilated_stages

from .resnet50 import backbone

backbone.stages = L(make_dilated_stages)(depth=50, norm="FrozenBN")
