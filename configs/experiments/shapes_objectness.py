"""Experiment on drawn shapes: small Sparse DETR, tokens selected by objectness."""

from ..models.small_sparse_detr_objectness import model
from .shapes_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/shapes_objectness"
