"""Experiment on blood cell photographs: small Sparse DETR, tokens selected by the DAM."""

from ..common.data.blood_cells import data, dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.small_sparse_detr import model

model.num_classes = "auto"

optimizer.lr = 1e-3
optimizer.lr_backbone = 8e-3
optimizer.batch_rule = "none"

schedule.epochs = 30
schedule.kind = "cosine"
schedule.warmup_iterations = 100

train.ema.enabled = True
train.ema.decay = 0.998
train.ema.warmup = 200
train.eval_period_epochs = 0
train.checkpointer.period_epochs = 10
train.checkpointer.max_to_keep = 2
train.output_dir = "output/experiments/blood_cells_dam"
