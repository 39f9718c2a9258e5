"""The reconstruction of SMCA on three levels, small enough for a CPU."""

from ..common.small_sizes import shrink
from .smca_multi_scale_reconstruction import model

shrink(model, ["res4", "res5"])
