"""Deformable DETR on the last map of the backbone alone."""

from .deformable_detr import model

model.num_levels = 1
model.backbone.out_features = ["res5"]
model.feature_projection.in_channels = dict(res5=2048)
