"""DETR, Swin-T, 500 epochs."""

from ..models.backbones.swin_tiny import backbone
from .detr_r50_500ep import dataloader, model, optimizer, schedule, train

model.backbone = backbone
model.backbone.out_features = ["stage3"]
model.feature_projection.in_channels = dict(stage3=768)
train.output_dir = "output/detr_swint_500ep"
