"""Small DETR that learns a few COCO images by heart: do data, model and losses fit?"""

from ..models.small_detr import model
from ..overfit import dataloader, optimizer, schedule, train

train.output_dir = "output/detr_overfit"
