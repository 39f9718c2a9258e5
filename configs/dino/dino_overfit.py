"""Small DINO that learns a few COCO images by heart: do data, model and losses fit?"""

from ..models.small_dino import model
from ..overfit import dataloader, optimizer, schedule, train

optimizer.norm_weight_decay = 0.0
train.output_dir = "output/dino_overfit"
