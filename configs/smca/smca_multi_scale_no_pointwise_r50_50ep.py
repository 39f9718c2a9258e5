"""SMCA, ResNet-50, multi-scale with depthwise convolutions alone, 50 epochs (43.7 AP)."""

from .smca_multi_scale_r50_50ep import dataloader, model, optimizer, schedule, train

model.encoder.pointwise = False
train.output_dir = "output/smca_multi_scale_no_pointwise_r50_50ep"
