"""DETR, small enough for a CPU: one level of stride 16, a backbone that trains from scratch."""

from .detr import model
from .small_sizes import shrink

shrink(model, ["res4"])
