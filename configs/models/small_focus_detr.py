"""Focus-DETR on DINO of few parameters that trains from scratch on a CPU."""

from .focus_detr import model as _focus_detr
from .small_dino import model

model.keep_ratio = "cascade:0.5x1,0.6,0.4"
model.token_scoring = _focus_detr.token_scoring
model.token_selection = _focus_detr.token_selection
_focus_detr.encoder.num_layers = model.encoder.num_layers
_focus_detr.encoder.feedforward_dim = model.encoder.feedforward_dim
model.encoder = _focus_detr.encoder
model.encoder.num_objects = 50
model.criterion.token_scoring = _focus_detr.criterion.token_scoring
model.criterion.token_scoring_weight = _focus_detr.criterion.token_scoring_weight
# Most objects of small images fit between these too.
model.criterion.token_scoring.level_ends = [32, 64, 128]
model.postprocess.max_detections = 100
