"""DINO, Swin-L with windows of 12, 4 scales, 12 epochs."""

from ..models.backbones.swin_large import backbone, in_channels
from .dino_r50_4scale_12ep import dataloader, model, optimizer, schedule, train

# Nothing is frozen.
backbone.window_size = 12
backbone.freeze_at = 0
backbone.drop_path_rate = 0.2
model.backbone = backbone
model.feature_projection.in_channels = in_channels
train.output_dir = "output/dino_swinl_384_4scale_12ep"
