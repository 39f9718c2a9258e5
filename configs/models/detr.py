"""DETR: dense attention on one level, classes that share one distribution with "no object"."""

from detectron2.config import LazyCall as L

from sparse_detr.class_scores import SoftmaxClasses
from sparse_detr.postprocess import BestClassDetections

from .single_scale_detr import model

model.feature_projection.xavier_start = False
model.position_embedding.offset = 0.0
model.position_embedding.level_embedding = False
model.heads.no_object_logit = True
model.heads.class_prior = None
model.heads.boxes_start_at_references = False
model.criterion.class_weight = 1.0
model.criterion.matcher.class_cost = 1.0
model.criterion.matcher.class_scores = L(SoftmaxClasses)(
    no_object_weight=0.1, own_process_only="${model.released_behaviour}"
)
model.postprocess = L(BestClassDetections)(
    max_detections="${model.query_selection.num_queries}",
    keep_boxes_outside="${model.released_behaviour}",
)
