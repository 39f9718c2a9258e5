"""Tokens are selected by a detection head in front of the encoder."""

from detectron2.config import LazyCall as L

from sparse_detr.token_scoring import ObjectnessScoring

token_scoring = L(ObjectnessScoring)(
    hidden_dim="${model.hidden_dim}", num_classes="${model.num_classes}"
)
