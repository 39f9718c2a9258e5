"""Sparse DETR's selection on dense attention: its DAM is the sum of the decoder's maps."""

from .single_scale_detr import model
from .sparse_detr import model as _sparse_detr

model.keep_ratio = 0.3
model.proposal_projection = _sparse_detr.proposal_projection
model.token_scoring = _sparse_detr.token_scoring
model.token_selection = _sparse_detr.token_selection
model.criterion.token_scoring = _sparse_detr.criterion.token_scoring
# An encoder head places boxes around its tokens, a decoder head does not: they cannot be shared.
model.heads.individual = True
model.heads.encoder_auxiliary = True
