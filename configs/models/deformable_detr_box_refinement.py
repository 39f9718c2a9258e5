"""Deformable DETR with iterative box refinement."""

from .deformable_detr import model

model.decoder.refine_boxes = True
model.heads.individual = True
