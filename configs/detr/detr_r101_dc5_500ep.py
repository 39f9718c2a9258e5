"""DETR, ResNet-101 with a dilated last stage (stride 16), 500 epochs."""

from .detr_r50_dc5_500ep import dataloader, model, optimizer, schedule, train

model.backbone.stages.depth = 101
train.output_dir = "output/detr_r101_dc5_500ep"
