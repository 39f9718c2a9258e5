"""Deformable DETR, Swin-T, with iterative box refinement, 50 epochs."""

from ..models.backbones.swin_tiny import backbone, in_channels
from .deformable_detr_r50_box_refinement_50ep import dataloader, model, optimizer, schedule, train

model.backbone = backbone
model.feature_projection.in_channels = in_channels
train.output_dir = "output/deformable_detr_swint_box_refinement_50ep"
