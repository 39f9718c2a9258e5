"""PnP-DETR: encoder and decoder work on the best tokens and on what the rest is pooled to."""

from detectron2.config import LazyCall as L

from sparse_detr.criterion import PollRegularisation
from sparse_detr.token_scoring import PollScoring
from sparse_detr.token_selection import PollAndPool

from .detr import model

model.keep_ratio = 0.333
model.token_scoring = L(PollScoring)(
    hidden_dim="${model.hidden_dim}",
    # Channels between its two layers; null for a single layer.
    score_dim="${model.hidden_dim}",
)
model.token_selection = L(PollAndPool)(
    hidden_dim="${model.hidden_dim}",
    num_pooled=30,
    key_layers=1,
    position_in_keys=False,
    # One model for all ratios: every training step draws its own from between.
    training_ratios=[1 / 3, 0.8],
)
model.criterion.token_scoring = L(PollRegularisation)(surplus_counts="${model.released_behaviour}")
model.criterion.token_scoring_weight = 1e-4
