"""Deformable DETR, small enough for a CPU: learned queries, boxes refined layer by layer."""

from .deformable_detr_box_refinement import model
from .small_sizes import shrink

shrink(model, ["res3", "res4", "res5"])
model.feature_projection.num_groups = 16
