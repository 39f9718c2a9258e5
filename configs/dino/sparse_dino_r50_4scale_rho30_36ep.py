"""DINO with Sparse DETR's selection of 30 % of the tokens, ResNet-50, 36 epochs."""

from ..models.sparse_dino import model
from .dino_r50_4scale_36ep import dataloader, optimizer, schedule, train

model.position_embedding.temperature = 20.0
model.position_embedding.offset = 0.0
train.output_dir = "output/sparse_dino_r50_4scale_rho30_36ep"
