"""DINO, ResNet-50, 4 scales, 36 epochs."""

from .dino_r50_4scale_24ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 36
schedule.milestones = [30]
train.output_dir = "output/dino_r50_4scale_36ep"
