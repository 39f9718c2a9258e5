"""SMCA, ResNet-50, single scale, with the product of the distances in the prior, 50 epochs."""

from .smca_r50_50ep import dataloader, model, optimizer, schedule, train

model.decoder.prior_scale = "axes_and_product"
train.output_dir = "output/smca_r50_cross_term_50ep"
