"""Tiny Sparse DETR that learns a few COCO images by heart: shows that data, model and losses fit.

train_net.py --config-file overfit
"""

from .common.data.coco import dataloader
from .common.optimizer import optimizer
from .common.schedule import schedule
from .common.train import train
from .models.backbones.small_resnet import backbone, in_channels
from .models.sparse_detr import model

model.backbone = backbone
model.hidden_dim = 128
model.keep_ratio = 0.3
model.feature_projection.in_channels = in_channels
model.encoder.num_layers = 2
model.encoder.feedforward_dim = 256
model.encoder.dropout = 0.0
model.decoder.num_layers = 3
model.query_selection.num_queries = 100

# Always the same pixels: no flip, no crop, one size.
dataloader.augmentation.flip_probability = 0.0
dataloader.augmentation.crop_probability = 0.0
dataloader.augmentation.short_edge_lengths = [256]
dataloader.augmentation.test_short_edge_length = 256
dataloader.augmentation.max_size = 448
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 2
dataloader.test.batch_size = 4
dataloader.test.num_workers = 2

optimizer.lr = 1e-3
optimizer.lr_backbone = 1e-3
optimizer.batch_rule = "none"

schedule.epochs = 400
schedule.milestones = [320]
schedule.warmup_iterations = 50

train.overfit_images = 8
train.eval_period_epochs = 0
train.checkpointer.period_epochs = 400
train.expected_results = [["bbox", "AP", 90.0]]
train.output_dir = "output/overfit"
