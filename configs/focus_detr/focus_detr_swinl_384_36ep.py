"""Focus-DETR on DINO, Swin-L with windows of 12, 36 epochs; from weights of ImageNet-22k."""

from ..models.backbones.swin_large import backbone, in_channels
from .focus_detr_swint_36ep import dataloader, model, optimizer, schedule, train

# Nothing is frozen.
backbone.window_size = 12
backbone.freeze_at = 0
backbone.drop_path_rate = 0.2
model.backbone = backbone
model.feature_projection.in_channels = in_channels
train.output_dir = "output/focus_detr_swinl_384_36ep"
