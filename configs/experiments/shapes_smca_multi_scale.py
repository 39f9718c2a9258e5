"""SMCA on four levels on drawn shapes."""

from ..models.small_smca_multi_scale import model
from .shapes_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/shapes_smca_multi_scale"
