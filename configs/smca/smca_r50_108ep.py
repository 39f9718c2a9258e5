"""SMCA, ResNet-50, single scale, 108 epochs; when its rate drops was not published."""

from .smca_r50_50ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 108
# As late as in 50 epochs.
schedule.milestones = [86]
train.output_dir = "output/smca_r50_108ep"
