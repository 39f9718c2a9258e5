"""Deformable DETR with box refinement on drawn shapes."""

from ..models.small_deformable_detr import model
from .shapes_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/shapes_deformable_detr"
