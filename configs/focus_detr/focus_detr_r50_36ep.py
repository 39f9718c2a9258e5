"""Focus-DETR on DINO, ResNet-50, 36 epochs.

The released file of ResNet-101 builds this model and writes to its folder: its schedule is this
one's, and that of the released file of ResNet-50 the other's.
"""

from .focus_detr_r50_24ep import dataloader, model, optimizer, schedule, train

schedule.epochs = 36
# Iterations 210 000 and 250 000 of 270 000.
schedule.milestones = [28, 33.333]
schedule.warmup_iterations = 1000
train.output_dir = "output/focus_detr_r50_36ep"
