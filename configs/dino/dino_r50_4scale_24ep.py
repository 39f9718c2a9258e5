"""DINO, ResNet-50, 4 scales, 24 epochs; with the position encoding of the longer schedules."""

from .dino_r50_4scale_12ep import dataloader, model, optimizer, schedule, train

model.position_embedding.temperature = 20.0
model.position_embedding.offset = 0.0
schedule.epochs = 24
schedule.milestones = [20]
train.output_dir = "output/dino_r50_4scale_24ep"
