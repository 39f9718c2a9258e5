"""DINO of few parameters that trains from scratch on a CPU."""

from .backbones.small_resnet import backbone, in_channels
from .dino import model

model.backbone = backbone
model.hidden_dim = 128
model.feature_projection.in_channels = in_channels
model.feature_projection.num_groups = 16
model.encoder.num_layers = 3
model.encoder.feedforward_dim = 256
model.decoder.num_layers = 3
model.query_selection.num_queries = 100
model.query_selection.denoising.denoising_number = 20
