"""Deformable DETR, ResNet-50 with a dilated last stage, one level of stride 16, 50 epochs."""

from ..models.backbones.resnet50_dc5 import backbone
from .deformable_detr_r50_single_scale_50ep import dataloader, model, optimizer, schedule, train

model.backbone.stages = backbone.stages
train.output_dir = "output/deformable_detr_r50_single_scale_dc5_50ep"
