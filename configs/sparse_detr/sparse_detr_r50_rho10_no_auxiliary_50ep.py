"""Sparse DETR, ResNet-50, keeps 10 % of the tokens, no auxiliary encoder loss, 50 epochs."""

from .sparse_detr_r50_rho10_50ep import dataloader, model, optimizer, schedule, train

model.heads.encoder_auxiliary = False
train.output_dir = "output/sparse_detr_r50_rho10_no_auxiliary_50ep"
