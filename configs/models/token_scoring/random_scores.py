"""Tokens are selected at random."""

from detectron2.config import LazyCall as L

from sparse_detr.token_scoring import RandomScoring

token_scoring = L(RandomScoring)(
    # Of evaluation; training draws anew for every image, by train.seed.
    seed=0,
)
