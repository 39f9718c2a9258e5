"""Focus-DETR on DINO, Swin-B with windows of 12, 36 epochs; from weights of ImageNet-22k."""

from ..models.backbones.swin_base_384 import backbone, in_channels
from .focus_detr_swint_36ep import dataloader, model, optimizer, schedule, train

# Nothing is frozen.
backbone.freeze_at = 0
backbone.drop_path_rate = 0.2
model.backbone = backbone
model.feature_projection.in_channels = in_channels
train.output_dir = "output/focus_detr_swinb_384_36ep"
