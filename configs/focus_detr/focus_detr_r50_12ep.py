"""Focus-DETR on DINO, ResNet-50, 12 epochs."""

from ..common.data.coco import dataloader
from ..common.dino_optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.focus_detr import model

schedule.epochs = 12
schedule.milestones = [11]
train.output_dir = "output/focus_detr_r50_12ep"
