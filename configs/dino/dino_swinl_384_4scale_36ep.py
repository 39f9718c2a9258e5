"""DINO, Swin-L with windows of 12, 4 scales, 36 epochs."""

from .dino_swinl_384_4scale_12ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 36
schedule.milestones = [30]
train.output_dir = "output/dino_swinl_384_4scale_36ep"
