"""SMCA, ResNet-101, multi-scale with convolutions, crossings of their own, 50 epochs (45.7 AP)."""

from .smca_multi_scale_separate_7x7_r50_50ep import dataloader, model, optimizer, schedule, train

model.backbone.stages.depth = 101
train.output_dir = "output/smca_multi_scale_separate_7x7_r101_50ep"
