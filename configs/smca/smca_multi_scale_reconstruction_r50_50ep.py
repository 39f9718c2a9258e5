"""SMCA, ResNet-50, multi-scale with attention, reconstructed from the paper, 50 epochs."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.smca_multi_scale_reconstruction import model

# DETR's rates, which do not follow the batch.
optimizer.lr = 1e-4
optimizer.lr_backbone = 1e-5
optimizer.batch_rule = "none"
dataloader.train.total_batch_size = 8
train.output_dir = "output/smca_multi_scale_reconstruction_r50_50ep"
