"""DINO, ResNet-50, 4 scales, 12 epochs."""

from ..common.data.coco import dataloader
from ..common.dino_optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.dino import model

schedule.epochs = 12
schedule.milestones = [11]
train.output_dir = "output/dino_r50_4scale_12ep"
