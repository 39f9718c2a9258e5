"""DETR, ResNet-50 with a dilated last stage (stride 16), 500 epochs."""

from ..models.backbones.resnet50_dc5 import backbone
from .detr_r50_500ep import dataloader, model, optimizer, schedule, train

model.backbone.stages = backbone.stages
train.output_dir = "output/detr_r50_dc5_500ep"
