"""Focus-DETR on DINO, Swin-T, 24 epochs."""

from .focus_detr_swint_12ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 24
schedule.milestones = [20]
train.output_dir = "output/focus_detr_swint_24ep"
