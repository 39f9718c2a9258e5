"""Swin-B with windows of 12, for weights of 384 pixels; embedding and first stage frozen."""

from .swin_tiny import backbone

backbone.embed_dim = 128
backbone.depths = [2, 2, 18, 2]
backbone.window_size = 12

# Channels of the maps, for the feature projection.
in_channels = dict(stage1=256, stage2=512, stage3=1024)
