"""DETR, ResNet-50, 150 epochs."""

from .detr_r50_300ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 150
schedule.milestones = [100]
train.output_dir = "output/detr_r50_150ep"
