"""The same with kernels of seven and six layers (44.3 AP)."""

from .smca_multi_scale_separate_r50_50ep import dataloader, model, optimizer, schedule, train

model.encoder.kernel_size = 7
model.encoder.num_layers = 6
train.output_dir = "output/smca_multi_scale_separate_7x7_r50_50ep"
