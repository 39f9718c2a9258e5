"""ResNet-50 in torchvision's layout; stem and first stage frozen, batch norm frozen throughout."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicStem, ResNet

backbone = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
    stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=False, norm="FrozenBN"),
    out_features=["res3", "res4", "res5"],
    freeze_at=2,
)

# Channels of the maps, for the feature projection.
in_channels = dict(res3=512, res4=1024, res5=2048)
