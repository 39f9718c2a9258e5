"""DETR, ResNet-101, 500 epochs."""

from .detr_r50_500ep import dataloader, model, optimizer, schedule, train

model.backbone.stages.depth = 101
train.output_dir = "output/detr_r101_500ep"
