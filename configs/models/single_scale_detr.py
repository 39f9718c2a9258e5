"""DETR's encoder, decoder and queries on one level of stride 32, with the heads and losses here."""

from detectron2.config import LazyCall as L

from sparse_detr.decoder import DenseDecoder
from sparse_detr.encoder import DenseEncoder
from sparse_detr.query_selection import LearnedQueries

from .deformable_detr import model

model.num_levels = 1
model.backbone.out_features = ["res5"]
model.feature_projection.in_channels = dict(res5=2048)
model.feature_projection.num_groups = None
model.encoder = L(DenseEncoder)(
    hidden_dim="${model.hidden_dim}",
    num_heads=8,
    num_layers=6,
    feedforward_dim=2048,
    dropout=0.1,
    checkpoint_activations=False,
    pre_norm=False,
)
model.query_selection = L(LearnedQueries)(
    hidden_dim="${model.hidden_dim}",
    num_queries=100,
    learned_content=False,
    with_references=False,
)
model.decoder = L(DenseDecoder)(
    hidden_dim="${model.hidden_dim}",
    num_heads="${model.encoder.num_heads}",
    num_layers=6,
    feedforward_dim="${model.encoder.feedforward_dim}",
    dropout="${model.encoder.dropout}",
    checkpoint_activations=False,
    pre_norm="${model.encoder.pre_norm}",
)
