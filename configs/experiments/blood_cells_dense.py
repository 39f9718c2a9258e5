"""Experiment on blood cell photographs: the dense twin, whose encoder updates all tokens."""

from ..models.small_efficient_detr import model
from .blood_cells_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/blood_cells_dense"
