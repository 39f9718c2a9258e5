"""Experiment on blood cell photographs: small Sparse DETR, tokens selected at random."""

from ..models.small_sparse_detr_random import model
from .blood_cells_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/blood_cells_random"
