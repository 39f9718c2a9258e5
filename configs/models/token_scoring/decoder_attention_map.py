"""Tokens are selected by a network that learns where the decoder looks: Sparse DETR's criterion."""

from detectron2.config import LazyCall as L

from sparse_detr.criterion import TokenScoringLoss
from sparse_detr.token_scoring import ScoringNetwork
from sparse_detr.token_selection import TopRhoSelection

token_scoring = L(ScoringNetwork)(
    hidden_dim="${model.hidden_dim}",
    average_over_padding="${model.released_behaviour}",
    checkpoint_activations=True,
)
token_selection = L(TopRhoSelection)(
    padding_competes="${model.released_behaviour}",
    edge_tokens_compete="${model.released_behaviour}",
)
loss = L(TokenScoringLoss)(
    include_padding="${model.released_behaviour}",
    half_cell_shift=True,
    surplus_counts="${model.released_behaviour}",
)
