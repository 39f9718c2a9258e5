"""SMCA on four levels with convolutions, small enough for a CPU."""

from ..common.small_sizes import shrink
from .smca_multi_scale import model

shrink(model, ["res3", "res4", "res5"])
