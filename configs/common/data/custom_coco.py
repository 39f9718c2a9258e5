"""Any data set in COCO format, given by paths on the command line.

The keys are data.train_json=... data.train_images=... data.val_json=... data.val_images=...
With model.num_classes=auto the class count is taken from the annotation files.
"""

from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from sparse_detr.data.datasets import load_custom_dataset

from .coco import dataloader

data = OmegaConf.create()
data.train_json = None
data.train_images = None
data.val_json = None
data.val_images = None

dataloader.train.dataset = L(load_custom_dataset)(
    names="custom_coco_train",
    json_file="${data.train_json}",
    image_root="${data.train_images}",
    filter_empty=False,
    on_bad_sample="${dataloader.train.on_bad_sample}",
)
dataloader.test.dataset = L(load_custom_dataset)(
    names="custom_coco_val",
    json_file="${data.val_json}",
    image_root="${data.val_images}",
    filter_empty=False,
)
