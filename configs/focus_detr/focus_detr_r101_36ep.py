"""Focus-DETR on DINO, ResNet-101, 36 epochs; see ResNet-50 about the schedule."""

from .focus_detr_r101_24ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 36
schedule.milestones = [20]
train.output_dir = "output/focus_detr_r101_36ep"
