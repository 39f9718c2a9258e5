"""DINO, ResNet-101, 4 scales, 12 epochs."""

from .dino_r50_4scale_12ep import dataloader, model, optimizer, schedule, train

model.backbone.stages.depth = 101
train.output_dir = "output/dino_r101_4scale_12ep"
