"""Deformable DETR, small enough for a CPU: learned queries, boxes refined layer by layer."""

from ..common.small_sizes import shrink
from .deformable_detr_box_refinement import model

shrink(model, ["res3", "res4", "res5"])
model.feature_projection.num_groups = 16
