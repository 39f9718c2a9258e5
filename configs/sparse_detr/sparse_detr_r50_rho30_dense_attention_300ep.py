"""Sparse DETR with dense attention, ResNet-50, single scale, keeps 30 %, DETR's 300 epochs."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.sparse_single_scale_detr import model

model.keep_ratio = 0.3

# DETR's rates, which do not follow the batch.
optimizer.lr = 1e-4
optimizer.lr_backbone = 1e-5
optimizer.batch_rule = "none"
schedule.epochs = 300
schedule.milestones = [200]
train.output_dir = "output/sparse_detr_r50_rho30_dense_attention_300ep"
