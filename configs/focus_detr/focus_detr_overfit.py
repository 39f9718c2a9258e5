"""Small Focus-DETR that learns a few COCO images by heart: do its parts and losses fit?"""

from ..models.small_focus_detr import model
from ..overfit import dataloader, optimizer, schedule, train

train.output_dir = "output/focus_detr_overfit"
