"""Small Sparse DETR that learns a few COCO images by heart: do data, model and losses fit?"""

from .common.data.coco import dataloader
from .common.optimizer import optimizer
from .common.schedule import schedule
from .common.train import train
from .models.small_sparse_detr import model

model.query_selection.num_queries = 100

# Always the same pixels: no flip, no crop, one size.
dataloader.augmentation.flip_probability = 0.0
dataloader.augmentation.crop_probability = 0.0
dataloader.augmentation.short_edge_lengths = [256]
dataloader.augmentation.test_short_edge_length = 256
dataloader.augmentation.max_size = 448
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 0
dataloader.test.batch_size = 4
dataloader.test.num_workers = 0

optimizer.lr = 1e-3
optimizer.lr_backbone = 4e-3
optimizer.batch_rule = "none"

schedule.epochs = 300
schedule.kind = "cosine"
schedule.warmup_iterations = 50

train.overfit_images = 8
train.eval_period_epochs = 0
train.checkpointer.period_epochs = 300
train.expected_results = [["bbox", "AP", 90.0]]
train.output_dir = "output/overfit"
