"""SMCA on four levels with convolutions, small enough for a CPU."""

from .small_sparse_detr import model as _small
from .smca_multi_scale import model

model.backbone = _small.backbone
model.feature_projection.in_channels = _small.feature_projection.in_channels
model.hidden_dim = _small.hidden_dim
model.encoder.num_layers = _small.encoder.num_layers
model.encoder.feedforward_dim = _small.encoder.feedforward_dim
model.encoder.dropout = _small.encoder.dropout
model.decoder.num_layers = _small.decoder.num_layers
model.query_selection.num_queries = 100
