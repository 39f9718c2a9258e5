"""DETR with norms in front of attention and network, and with learned positions."""

from detectron2.config import LazyCall as L

from sparse_detr.feature_projection import LearnedPositionEmbedding

from .detr import model

model.encoder.pre_norm = True
model.position_embedding = L(LearnedPositionEmbedding)(
    hidden_dim="${model.hidden_dim}",
    num_levels="${model.num_levels}",
    num_cells=50,
    level_embedding=False,
)
