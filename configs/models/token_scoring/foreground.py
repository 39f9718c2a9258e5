"""Selection by foreground scores, in the place of the scoring network, with its loss."""

from detectron2.config import LazyCall as L

from sparse_detr.criterion import ForegroundLoss
from sparse_detr.token_scoring import ForegroundScoring
from sparse_detr.token_selection import TopRhoSelection

token_scoring = L(ForegroundScoring)(
    hidden_dim="${model.hidden_dim}",
    num_levels="${model.num_levels}",
    average_over_padding="${model.released_behaviour}",
    checkpoint_activations=True,
)

token_selection = L(TopRhoSelection)(
    padding_competes="${model.released_behaviour}",
    edge_tokens_compete="${model.released_behaviour}",
    counts_from_largest="${model.released_behaviour}",
)

foreground_loss = L(ForegroundLoss)(
    level_ends=[64, 128, 256],
    overlapping_levels=False,
    include_padding="${model.released_behaviour}",
    alpha=0.25,
    gamma=2.0,
)
