"""Focus-DETR on two-stage Deformable DETR, for which nothing is published.

The first stage learns the true labels: its class head also tells the encoder what is an object.
"""

from .deformable_detr_two_stage import model
from .focus_detr import model as _focus_detr

model.keep_ratio = _focus_detr.keep_ratio
model.token_scoring = _focus_detr.token_scoring
model.token_selection = _focus_detr.token_selection
model.encoder = _focus_detr.encoder
model.encoder.feedforward_dim = 1024
model.encoder.dropout = 0.1
model.query_selection.class_specific = True
model.criterion.token_scoring = _focus_detr.criterion.token_scoring
model.criterion.token_scoring_weight = _focus_detr.criterion.token_scoring_weight
