"""DINO on drawn shapes."""

from ..models.small_dino import model
from .shapes_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/shapes_dino"
