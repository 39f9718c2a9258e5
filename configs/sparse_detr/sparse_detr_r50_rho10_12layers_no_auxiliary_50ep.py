"""Sparse DETR, ResNet-50, 12 encoder layers, 10 % of the tokens, no auxiliary loss, 50 epochs."""

from .sparse_detr_r50_rho10_12layers_50ep import dataloader, model, optimizer, schedule, train

model.heads.encoder_auxiliary = False
train.output_dir = "output/sparse_detr_r50_rho10_12layers_no_auxiliary_50ep"
