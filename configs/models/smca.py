"""SMCA, single scale: the decoder's attention starts out near a place, by head."""

from detectron2.config import LazyCall as L

from sparse_detr.decoder import SmcaDecoder

from .single_scale_detr import model

# DETR's positions: cells count from 1, without the half cell, and there is but one level.
model.feature_projection.xavier_start = False
model.position_embedding.offset = 0.0
model.position_embedding.level_embedding = False
model.query_selection.num_queries = 300
model.decoder = L(SmcaDecoder)(
    hidden_dim="${model.hidden_dim}",
    num_heads="${model.encoder.num_heads}",
    num_layers=6,
    feedforward_dim="${model.encoder.feedforward_dim}",
    dropout="${model.encoder.dropout}",
    # axes, isotropic, fixed or axes_and_product
    prior_scale="axes",
    heads_share_prior=False,
    prior_smooth=8.0,
    level_factors=[1.0],
    select_scales=True,
    alpha_of_first_image="${model.released_behaviour}",
    checkpoint_activations=False,
)
# The classifier starts at a probability of 1 %, the boxes as linear layers do.
model.heads.class_prior = 0.01
model.heads.boxes_start_at_references = False
