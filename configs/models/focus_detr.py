"""Focus-DETR on DINO: the encoder updates fewer foreground tokens with each layer."""

from .dino import model
from .encoders.dual_attention import encoder
from .token_scoring.foreground import foreground_loss, token_scoring, token_selection

model.keep_ratio = "cascade:0.5x1,0.8,0.6,0.6,0.4,0.2"
model.token_scoring = token_scoring
model.token_selection = token_selection
model.encoder = encoder
model.criterion.token_scoring = foreground_loss
model.criterion.token_scoring_weight = 1.5
