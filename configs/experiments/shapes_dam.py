"""Experiment on drawn shapes: small Sparse DETR, tokens selected by the decoder attention map."""

from ..quickstart import data, dataloader, model, optimizer, schedule, train

schedule.epochs = 1.5

# One evaluation, at the end; the program that starts the runs judges the results.
train.eval_period_epochs = 0
train.checkpointer.max_to_keep = 2
train.expected_results = []
train.output_dir = "output/experiments/shapes_dam"
