"""SMCA, ResNet-50, single scale, one width for all priors, 50 epochs."""

from .smca_r50_50ep import dataloader, model, optimizer, schedule, train

model.decoder.prior_scale = "fixed"
train.output_dir = "output/smca_r50_fixed_scale_50ep"
