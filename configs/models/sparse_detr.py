"""Sparse DETR: the encoder updates the tokens that the decoder is going to look at."""

from detectron2.config import LazyCall as L

from sparse_detr.criterion import TokenScoringLoss
from sparse_detr.token_scoring import ScoringNetwork
from sparse_detr.token_selection import TopRhoSelection

from .efficient_detr import model

model.keep_ratio = 0.1
model.token_scoring = L(ScoringNetwork)(
    hidden_dim="${model.hidden_dim}",
    average_over_padding="${model.released_behaviour}",
    checkpoint_activations=True,
)
model.token_selection = L(TopRhoSelection)(
    padding_competes="${model.released_behaviour}",
    edge_tokens_compete="${model.released_behaviour}",
)
model.heads.encoder_auxiliary = True
model.criterion.token_scoring = L(TokenScoringLoss)(
    include_padding="${model.released_behaviour}",
    half_cell_shift=True,
    surplus_counts="${model.released_behaviour}",
)
