"""Narrow ResNet that trains from scratch on a CPU; nothing frozen."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

from sparse_detr.backbone import make_basic_stages

backbone = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=16, norm="BN"),
    stages=L(make_basic_stages)(
        stem_width="${..stem.out_channels}",
        widths=[16, 32, 64, 128],
        depths=[2, 2, 2, 2],
        norm="${..stem.norm}",
    ),
    out_features=["res3", "res4", "res5"],
    freeze_at=0,
)

# Channels of the maps, for the feature projection.
in_channels = dict(res3=32, res4=64, res5=128)
