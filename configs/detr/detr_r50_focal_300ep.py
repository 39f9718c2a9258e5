"""The dense twin of Sparse DETR on dense attention: its heads and losses, no token is left out."""

from ..models.single_scale_detr import model
from .detr_r50_300ep import dataloader, optimizer, schedule, train

train.output_dir = "output/detr_r50_focal_300ep"
