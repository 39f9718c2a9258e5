"""Experiment on drawn shapes: small Sparse DETR, tokens selected at random."""

from ..models.small_sparse_detr_random import model
from .shapes_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/shapes_random"
