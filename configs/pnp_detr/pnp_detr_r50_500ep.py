"""PnP-DETR, ResNet-50, one model for all ratios, 500 epochs: the schedule of the paper."""

from .pnp_detr_r50_300ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 500
schedule.milestones = [400]
train.output_dir = "output/pnp_detr_r50_500ep"
