"""DETR, small enough for a CPU: one level of stride 16, a backbone that trains from scratch."""

from .detr import model
from .small_sparse_detr import model as _small

model.backbone = _small.backbone
model.backbone.out_features = ["res4"]
model.feature_projection.in_channels = dict(res4=64)
model.hidden_dim = _small.hidden_dim
model.encoder.num_layers = _small.encoder.num_layers
model.encoder.feedforward_dim = _small.encoder.feedforward_dim
model.encoder.dropout = _small.encoder.dropout
model.decoder.num_layers = _small.decoder.num_layers
model.query_selection.num_queries = 100
