"""The dense twin of the small Sparse DETR: the encoder updates all tokens, nothing scores them."""

from .small_sparse_detr import model

model.keep_ratio = None
model.token_scoring = None
model.token_selection = None
model.heads.encoder_auxiliary = False
model.criterion.token_scoring = None
