"""Small SMCA on four levels that learns a few COCO images by heart."""

from ..models.small_smca_multi_scale import model
from ..overfit import dataloader, optimizer, schedule, train

train.output_dir = "output/smca_multi_scale_overfit"
