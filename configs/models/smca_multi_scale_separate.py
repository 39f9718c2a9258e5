"""SMCA, multi-scale, the other released encoder: kernels of five, crossings of their own."""

from .smca_multi_scale import model

model.encoder.num_layers = 5
model.encoder.kernel_size = 5
model.encoder.separate_crossings = True
