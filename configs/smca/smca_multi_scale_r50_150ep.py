"""SMCA, ResNet-50, multi-scale with convolutions as released, 150 epochs."""

from .smca_multi_scale_r50_50ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 150
schedule.milestones = [100]
train.output_dir = "output/smca_multi_scale_r50_150ep"
