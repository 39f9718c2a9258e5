"""SMCA, ResNet-50, single scale, one prior for all heads, 50 epochs."""

from .smca_r50_50ep import dataloader, model, optimizer, schedule, train

model.decoder.heads_share_prior = True
train.output_dir = "output/smca_r50_head_shared_50ep"
