"""Sparse DETR, ResNet-50, 12 encoder layers, keeps 10 % of the tokens, 50 epochs."""

from .sparse_detr_r50_rho10_50ep import dataloader, model, optimizer, schedule, train

model.encoder.num_layers = 12
train.output_dir = "output/sparse_detr_r50_rho10_12layers_50ep"
