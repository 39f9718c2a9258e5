"""DINO, ResNet-50, 4 scales, with up to 300 pairs of denoising queries, 12 epochs."""

from .dino_r50_4scale_12ep import dataloader, model, optimizer, schedule, train

model.query_selection.denoising.denoising_number = 300
train.output_dir = "output/dino_r50_4scale_300dn_12ep"
