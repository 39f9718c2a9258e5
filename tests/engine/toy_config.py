"""The toy detector on a few drawn shapes, with the project's own common configs."""

import sys
from pathlib import Path

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

here = Path(__file__).resolve().parent
if str(here) not in sys.path:
    sys.path.insert(0, str(here))

from toy import ToyDetector  # noqa: E402

common = here.parents[1] / "configs" / "common"
train = LazyConfig.load(str(common / "train.py")).train
optimizer = LazyConfig.load(str(common / "optimizer.py")).optimizer
schedule = LazyConfig.load(str(common / "schedule.py")).schedule
shapes = LazyConfig.load(str(common / "data" / "shapes.py"))
data, dataloader = shapes.data, shapes.dataloader

model = L(ToyDetector)(
    num_classes="auto", hidden=8, dropout=0.1, keep_ratio=0.5, fail_at=0, dtype="float32"
)

data.image_size = 64
data.train_images = 12
data.val_images = 4
dataloader.augmentation.short_edge_lengths = [64]
dataloader.augmentation.max_size = 128
dataloader.augmentation.test_short_edge_length = 64
dataloader.train.total_batch_size = 4
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0
train.device = "cpu"
train.log_period = 1
train.eval_period_epochs = 0
train.checkpointer.period_epochs = 0
optimizer.lr = 1e-2
schedule.epochs = 4
schedule.milestones = [3]

del common, here, shapes
