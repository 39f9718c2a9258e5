"""Swin-L with windows of 7; patch embedding and first stage frozen."""

from .swin_tiny import backbone

backbone.embed_dim = 192
backbone.depths = [2, 2, 18, 2]
backbone.window_size = 7

# Channels of the maps, for the feature projection.
in_channels = dict(stage1=384, stage2=768, stage3=1536)
