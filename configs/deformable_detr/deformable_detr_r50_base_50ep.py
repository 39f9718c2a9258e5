"""Deformable DETR, ResNet-50, single stage, 50 epochs."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.deformable_detr import model

train.output_dir = "output/deformable_detr_r50_base_50ep"
