r"""Sparse DETR, ResNet-50, keeps 30 % of the tokens, on any data set in COCO format.

train_net.py --config-file custom_dataset data.train_json=... data.train_images=... \
    data.val_json=... data.val_images=...
"""

from .common.data.custom_coco import data, dataloader
from .common.optimizer import optimizer
from .common.schedule import schedule
from .common.train import train
from .models.sparse_detr import model

model.keep_ratio = 0.3
# Taken from the training annotations.
model.num_classes = "auto"
dataloader.train.total_batch_size = 8
train.output_dir = "output/custom_dataset"
