"""Sparse DETR, Swin-T, keeps 20 % of the tokens, 50 epochs."""

from ..models.backbones.swin_tiny import backbone, in_channels
from .sparse_detr_r50_rho20_50ep import dataloader, model, optimizer, schedule, train

model.backbone = backbone
model.feature_projection.in_channels = in_channels
train.output_dir = "output/sparse_detr_swint_rho20_50ep"
