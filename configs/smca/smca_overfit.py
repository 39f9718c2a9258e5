"""Small SMCA that learns a few COCO images by heart: do data, model and losses fit?"""

from ..models.small_smca import model
from ..overfit import dataloader, optimizer, schedule, train

train.output_dir = "output/smca_overfit"
