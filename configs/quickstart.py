"""Small Sparse DETR on drawn shapes, from scratch on a CPU in minutes: what `make demo` trains."""

from .common.data.shapes import data, dataloader
from .common.optimizer import optimizer
from .common.schedule import schedule
from .common.train import train
from .models.small_sparse_detr import model

# Taken from the drawn annotations.
model.num_classes = "auto"

# Few passes over many images: repeating fewer images more often generalises worse.
data.train_images = 5000

# From scratch the backbone has the most to learn.
optimizer.lr = 1e-3
optimizer.lr_backbone = 8e-3
optimizer.batch_rule = "none"

schedule.epochs = 4
schedule.kind = "cosine"
schedule.warmup_iterations = 100

train.output_dir = "output/quickstart"
train.ema.enabled = True
train.ema.decay = 0.998
train.ema.warmup = 200
train.eval_period_epochs = 1
train.checkpointer.period_epochs = 1
# The gate: lies just under the lowest of three seeds.
train.expected_results = [["bbox", "AP", 66.0]]
