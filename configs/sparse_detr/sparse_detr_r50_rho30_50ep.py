"""Sparse DETR, ResNet-50, keeps 30 % of the tokens, 50 epochs."""

from .sparse_detr_r50_rho10_50ep import dataloader, model, optimizer, schedule, train

model.keep_ratio = 0.3
train.output_dir = "output/sparse_detr_r50_rho30_50ep"
