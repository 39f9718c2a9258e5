"""SMCA, ResNet-50, multi-scale reconstruction, all scales count alike, 50 epochs."""

from .smca_multi_scale_reconstruction_r50_50ep import dataloader, model, optimizer, schedule, train

model.decoder.select_scales = False
train.output_dir = "output/smca_multi_scale_reconstruction_no_selection_r50_50ep"
