"""Sparse DETR: the encoder updates the tokens that the decoder is going to look at."""

from .efficient_detr import model
from .token_scoring.decoder_attention_map import loss, token_scoring, token_selection

model.keep_ratio = 0.1
model.token_scoring = token_scoring
model.token_selection = token_selection
model.heads.encoder_auxiliary = True
model.criterion.token_scoring = loss
