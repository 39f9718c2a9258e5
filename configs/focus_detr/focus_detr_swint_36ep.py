"""Focus-DETR on DINO, Swin-T, 36 epochs; from weights of ImageNet-1k or 22k."""

from .focus_detr_swint_12ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 36
schedule.milestones = [30]
train.output_dir = "output/focus_detr_swint_36ep"
