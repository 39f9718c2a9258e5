"""PnP-DETR, ResNet-50, one model for all ratios, 300 epochs: the released program's schedule."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.pnp_detr import model

# DETR's rates, which do not follow the batch.
optimizer.lr = 1e-4
optimizer.lr_backbone = 1e-5
optimizer.batch_rule = "none"
schedule.epochs = 300
schedule.milestones = [200]
train.output_dir = "output/pnp_detr_r50_300ep"
