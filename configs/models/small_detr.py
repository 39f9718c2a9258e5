"""DETR, small enough for a CPU: one level of stride 16, a backbone that trains from scratch."""

from ..common.small_sizes import shrink
from .detr import model

shrink(model, ["res4"])
