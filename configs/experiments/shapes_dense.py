"""Experiment on drawn shapes: the dense twin, whose encoder updates all tokens."""

from ..models.small_efficient_detr import model
from .shapes_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/shapes_dense"
