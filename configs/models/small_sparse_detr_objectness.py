"""The small Sparse DETR whose tokens are selected by objectness."""

from .small_sparse_detr import model
from .token_scoring.corr import corr
from .token_scoring.objectness import token_scoring

model.token_scoring = token_scoring
model.criterion.token_scoring = corr
