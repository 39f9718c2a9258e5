"""DETR, ResNet-50, 50 epochs: what SMCA and Sparse DETR are compared with."""

from .detr_r50_300ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 50
schedule.milestones = [40]
train.output_dir = "output/detr_r50_50ep"
