"""Deformable DETR, ResNet-50, two-stage with Efficient DETR's query initialisation, 50 epochs."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.efficient_detr import model

train.output_dir = "output/deformable_detr_r50_topk_queries_50ep"
