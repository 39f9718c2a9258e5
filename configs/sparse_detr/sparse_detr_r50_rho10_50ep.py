"""Sparse DETR, ResNet-50, keeps 10 % of the tokens, 50 epochs."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.sparse_detr import model

model.keep_ratio = 0.1
train.output_dir = "output/sparse_detr_r50_rho10_50ep"
