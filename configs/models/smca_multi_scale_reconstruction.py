"""SMCA, multi-scale, "2Intra-Multi-2Intra" with attention: a reconstruction from the paper.

No code of it was ever published.
"""

from detectron2.config import LazyCall as L

from sparse_detr.encoder import IntraMultiEncoder

from .smca_multi_scale import model

model.num_levels = 3
model.backbone.out_features = ["res4", "res5"]
model.feature_projection.in_channels = dict(res4=1024, res5=2048)
model.encoder = L(IntraMultiEncoder)(
    hidden_dim="${model.hidden_dim}",
    num_heads=8,
    num_layers=5,
    joint_layers=[2],
    feedforward_dim=1024,
    dropout=0.1,
    checkpoint_activations=False,
)
model.decoder.num_heads = "${model.encoder.num_heads}"
model.decoder.level_factors = [0.5, 1.0, 2.0]
