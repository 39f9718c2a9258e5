"""Deformable DETR, ResNet-50, two-stage with the original query initialisation, 50 epochs."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.deformable_detr_two_stage import model

train.output_dir = "output/deformable_detr_r50_two_stage_50ep"
