"""SMCA, ResNet-50, multi-scale reconstruction, 108 epochs; the rate's drop was not published."""

from .smca_multi_scale_reconstruction_r50_50ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 108
# As late as in 50 epochs.
schedule.milestones = [86]
train.output_dir = "output/smca_multi_scale_reconstruction_r50_108ep"
