"""Experiment on drawn shapes: small DETR, which starts without any notion of place."""

from ..models.small_detr import model
from .shapes_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/shapes_detr"
