"""Small Sparse DETR on drawn shapes, from scratch on a CPU in minutes: what `make demo` trains."""

from .common.data.shapes import data, dataloader
from .common.optimizer import optimizer
from .common.schedule import schedule
from .common.train import train
from .models.backbones.small_resnet import backbone, in_channels
from .models.sparse_detr import model

model.backbone = backbone
model.num_classes = "auto"
model.hidden_dim = 128
model.keep_ratio = 0.3
model.feature_projection.in_channels = in_channels
model.feature_projection.num_groups = 16
model.encoder.num_layers = 3
model.encoder.feedforward_dim = 256
model.encoder.dropout = 0.0
model.decoder.num_layers = 3
model.query_selection.num_queries = 50

# From scratch the backbone has the most to learn.
optimizer.lr = 1e-3
optimizer.lr_backbone = 8e-3
optimizer.batch_rule = "none"

schedule.epochs = 10.4
schedule.kind = "cosine"
schedule.warmup_iterations = 100

train.output_dir = "output/quickstart"
train.ema.enabled = True
train.ema.decay = 0.998
train.ema.warmup = 200
train.eval_period_epochs = 2.6
train.checkpointer.period_epochs = 5.2
