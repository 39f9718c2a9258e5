"""Deformable DETR, ResNet-50, one level of stride 32, 50 epochs."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.deformable_detr_single_scale import model

train.output_dir = "output/deformable_detr_r50_single_scale_50ep"
