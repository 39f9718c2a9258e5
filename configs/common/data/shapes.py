"""Drawn shapes, generated on first use; small images at their own size, flipped but not cropped."""

from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from sparse_detr.data.datasets import load_shapes_dataset

from .coco import dataloader

data = OmegaConf.create()
data.root = "output/shapes"
data.image_size = 160
data.train_images = 2000
data.val_images = 200
data.train_seed = 1
data.val_seed = 2

dataloader.train.dataset = L(load_shapes_dataset)(
    names="shapes_train",
    root="${data.root}",
    num_images="${data.train_images}",
    seed="${data.train_seed}",
    image_size="${data.image_size}",
)
dataloader.test.dataset = L(load_shapes_dataset)(
    names="shapes_val",
    root="${data.root}",
    num_images="${data.val_images}",
    seed="${data.val_seed}",
    image_size="${data.image_size}",
)

dataloader.augmentation.short_edge_lengths = ["${data.image_size}"]
dataloader.augmentation.max_size = 320
dataloader.augmentation.crop_probability = 0.0
dataloader.augmentation.crop_short_edge_lengths = [160, 192, 224]
dataloader.augmentation.crop_size = [112, 160]
dataloader.augmentation.test_short_edge_length = "${data.image_size}"
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 0
dataloader.test.batch_size = 8
dataloader.test.num_workers = 0
