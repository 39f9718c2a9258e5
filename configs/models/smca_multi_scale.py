"""SMCA, multi-scale, as released: four levels that an encoder of convolutions mixes.

It has seven by seven kernels and one crossing for all neighbours (44.4 AP).
"""

from detectron2.config import LazyCall as L

from sparse_detr.encoder import ConvolutionEncoder

from .smca import model

model.num_levels = 4
model.backbone.out_features = ["res3", "res4", "res5"]
model.feature_projection.in_channels = dict(res3=512, res4=1024, res5=2048)
model.feature_projection.extra_levels_derive_padding = "${model.released_behaviour}"
model.position_embedding.level_embedding = True
model.encoder = L(ConvolutionEncoder)(
    hidden_dim="${model.hidden_dim}",
    num_levels="${model.num_levels}",
    num_layers=6,
    kernel_size=7,
    separate_crossings=False,
    pointwise=True,
    feedforward_dim=1024,
    dropout=0.1,
    padding_takes_part="${model.pad_before_backbone}",
    checkpoint_activations=False,
)
# The encoder has no heads to copy the number from.
model.decoder.num_heads = 8
model.decoder.level_factors = [0.5, 0.5, 1.0, 2.0]
