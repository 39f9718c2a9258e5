"""Deformable DETR, ResNet-50, with iterative box refinement, 50 epochs."""

from ..common.data.coco import dataloader
from ..common.optimizer import optimizer
from ..common.schedule import schedule
from ..common.train import train
from ..models.deformable_detr_box_refinement import model

train.output_dir = "output/deformable_detr_r50_box_refinement_50ep"
