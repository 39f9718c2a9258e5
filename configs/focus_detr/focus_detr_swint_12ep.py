"""Focus-DETR on DINO, Swin-T, 12 epochs."""

from ..models.backbones.swin_tiny import backbone, in_channels
from .focus_detr_r50_12ep import dataloader, model, optimizer, schedule, train

# Nothing is frozen.
backbone.freeze_at = 0
backbone.drop_path_rate = 0.1
model.backbone = backbone
model.feature_projection.in_channels = in_channels
train.output_dir = "output/focus_detr_swint_12ep"
