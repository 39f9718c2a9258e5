"""SMCA, ResNet-101, multi-scale reconstruction, 50 epochs."""

from .smca_multi_scale_reconstruction_r50_50ep import dataloader, model, optimizer, schedule, train

model.backbone.stages.depth = 101
train.output_dir = "output/smca_multi_scale_reconstruction_r101_50ep"
