"""DINO of few parameters with Sparse DETR's selection."""

from .small_dino import model
from .token_scoring.decoder_attention_map import loss, token_scoring, token_selection

model.keep_ratio = 0.3
model.token_scoring = token_scoring
model.token_selection = token_selection
model.heads.encoder_auxiliary = True
model.criterion.token_scoring = loss
