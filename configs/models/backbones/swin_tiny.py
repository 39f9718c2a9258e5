"""Swin-T; patch embedding and first stage frozen."""

from detectron2.config import LazyCall as L

from sparse_detr.backbone import SwinBackbone

backbone = L(SwinBackbone)(
    embed_dim=96,
    depths=[2, 2, 6, 2],
    drop_path_rate=0.2,
    out_features=["stage1", "stage2", "stage3"],
    freeze_at=2,
    drop_path_in_frozen_stages="${model.released_behaviour}",
)

# Channels of the maps, for the feature projection.
in_channels = dict(stage1=192, stage2=384, stage3=768)
