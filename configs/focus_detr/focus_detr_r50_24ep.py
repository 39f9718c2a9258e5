"""Focus-DETR on DINO, ResNet-50, 24 epochs; positions as the longer schedules have them."""

from .focus_detr_r50_12ep import dataloader, model, optimizer, schedule, train

model.position_embedding.temperature = 20.0
model.position_embedding.offset = 0.0
schedule.epochs = 24
schedule.milestones = [20]
train.output_dir = "output/focus_detr_r50_24ep"
