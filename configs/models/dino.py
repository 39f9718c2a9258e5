"""DINO, 4 scales: mixed query selection, contrastive denoising, look forward twice."""

from detectron2.config import LazyCall as L

from sparse_detr.decoder import ReferencePosition
from sparse_detr.query_selection import ContrastiveDenoising, MixedQueries

from .deformable_detr_two_stage import model

# Only the stem is frozen.
model.backbone.freeze_at = 1
model.position_embedding.temperature = 10000.0
model.position_embedding.offset = -0.5
model.position_embedding.padding_in_evaluation = "${model.released_behaviour}"
model.encoder.feedforward_dim = 2048
model.encoder.dropout = 0.0
model.query_selection = L(MixedQueries)(
    hidden_dim="${model.hidden_dim}",
    num_queries=900,
    denoising=L(ContrastiveDenoising)(
        hidden_dim="${model.hidden_dim}",
        num_classes="${model.num_classes}",
        denoising_number=100,
        label_noise=0.5,
        box_noise=1.0,
        unused_rows_seen="${model.released_behaviour}",
        reference_eps="${model.heads.reference_eps}",
    ),
    any_token_competes="${model.released_behaviour}",
)
model.decoder.shared_norm = True
model.decoder.look_forward_twice = True
model.decoder.reference_position = L(ReferencePosition)(
    hidden_dim="${model.hidden_dim}", scaled_to_padded_map="${model.released_behaviour}"
)
model.heads.reference_eps = 1e-3
# The matching cost of classes keeps its weight of 2.
model.criterion.class_weight = 1.0
model.criterion.matcher.iou_eps = 1e-6
model.postprocess.max_detections = 300
# Boxes are clipped in the released code too.
model.postprocess.keep_boxes_outside = False
