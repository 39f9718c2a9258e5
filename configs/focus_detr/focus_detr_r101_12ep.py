"""Focus-DETR on DINO, ResNet-101, 12 epochs."""

from .focus_detr_r50_12ep import dataloader, model, optimizer, schedule, train

model.backbone.stages.depth = 101
train.output_dir = "output/focus_detr_r101_12ep"
