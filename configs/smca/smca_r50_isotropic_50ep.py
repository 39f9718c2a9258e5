"""SMCA, ResNet-50, single scale, one scale for width and height, 50 epochs."""

from .smca_r50_50ep import dataloader, model, optimizer, schedule, train

model.decoder.prior_scale = "isotropic"
train.output_dir = "output/smca_r50_isotropic_50ep"
