"""Experiment on blood cell photographs: small Sparse DETR, tokens selected by objectness."""

from ..models.small_sparse_detr_objectness import model
from .blood_cells_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/blood_cells_objectness"
