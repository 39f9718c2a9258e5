"""SMCA, ResNet-50, multi-scale reconstruction, no layer among the scales, 50 epochs."""

from .smca_multi_scale_reconstruction_r50_50ep import dataloader, model, optimizer, schedule, train

model.encoder.joint_layers = []
train.output_dir = "output/smca_multi_scale_reconstruction_intra_r50_50ep"
