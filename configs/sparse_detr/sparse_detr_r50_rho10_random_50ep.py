"""Sparse DETR, ResNet-50, keeps 10 % of the tokens by chance, 50 epochs."""

from ..models.sparse_detr_random import model
from .sparse_detr_r50_rho10_50ep import dataloader, optimizer, schedule, train

model.keep_ratio = 0.1
train.output_dir = "output/sparse_detr_r50_rho10_random_50ep"
