"""Focus-DETR on two-stage Deformable DETR, ResNet-50, 50 epochs; nothing is published of it."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.focus_deformable_detr import model

train.output_dir = "output/focus_deformable_detr_r50_50ep"
