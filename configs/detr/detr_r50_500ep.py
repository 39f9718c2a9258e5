"""DETR, ResNet-50, 500 epochs: the schedule of the published weights."""

from .detr_r50_300ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 500
schedule.milestones = [400]
train.output_dir = "output/detr_r50_500ep"
