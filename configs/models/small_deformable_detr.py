"""Deformable DETR, small enough for a CPU: learned queries, boxes refined layer by layer."""

from .deformable_detr_box_refinement import model
from .small_sparse_detr import model as _small

model.backbone = _small.backbone
model.feature_projection = _small.feature_projection
model.hidden_dim = _small.hidden_dim
model.encoder.num_layers = _small.encoder.num_layers
model.encoder.feedforward_dim = _small.encoder.feedforward_dim
model.encoder.dropout = _small.encoder.dropout
model.decoder.num_layers = _small.decoder.num_layers
model.query_selection.num_queries = 100
