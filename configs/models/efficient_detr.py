"""Deformable DETR with Efficient DETR's query initialisation: the dense twin of Sparse DETR."""

from .deformable_detr_two_stage import model

model.query_selection.class_specific = True
model.query_selection.content_from_memory = True
