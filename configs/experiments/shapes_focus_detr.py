"""Focus-DETR on DINO on drawn shapes."""

from ..models.small_focus_detr import model
from .shapes_dam import data, dataloader, optimizer, schedule, train

model.num_classes = "auto"
train.output_dir = "output/experiments/shapes_focus_detr"
