"""Photographs of blood cells (BCCD): annotations/{train,val}.json (COCO format) and images/."""

from .custom_coco import data, dataloader

data.root = "datasets/bccd"
data.train_json = "${data.root}/annotations/train.json"
data.train_images = "${data.root}/images"
data.val_json = "${data.root}/annotations/val.json"
data.val_images = "${data.root}/images"

# Less than half of the photographs' size: red cells are 40 pixels across, platelets 16.
dataloader.augmentation.short_edge_lengths = [176, 192, 208]
dataloader.augmentation.crop_short_edge_lengths = [208, 224, 240]
dataloader.augmentation.crop_size = [160, 208]
dataloader.augmentation.test_short_edge_length = 192
dataloader.augmentation.max_size = 320
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 0
dataloader.test.batch_size = 8
dataloader.test.num_workers = 0
