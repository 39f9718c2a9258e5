"""Deformable DETR, single stage, without box refinement: the tree that its relatives vary."""

from detectron2.config import LazyCall as L

from sparse_detr.class_scores import SigmoidClasses
from sparse_detr.criterion import SetCriterion
from sparse_detr.decoder import DeformableDecoder
from sparse_detr.encoder import DeformableEncoder
from sparse_detr.feature_projection import MultiScaleProjection, PositionEmbedding
from sparse_detr.heads import DetectionHeads
from sparse_detr.matcher import HungarianMatcher
from sparse_detr.meta_arch import TransformerDetector
from sparse_detr.postprocess import TopDetections
from sparse_detr.query_selection import LearnedQueries

from .backbones.resnet50 import backbone, in_channels

model = L(TransformerDetector)(
    num_classes=80,
    hidden_dim=256,
    num_levels=4,
    keep_ratio=None,
    released_behaviour=False,
    pad_before_backbone="${model.released_behaviour}",
    input_format="RGB",
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    backbone=backbone,
    feature_projection=L(MultiScaleProjection)(
        in_channels=in_channels,
        hidden_dim="${model.hidden_dim}",
        num_levels="${model.num_levels}",
        num_groups=32,
    ),
    position_embedding=L(PositionEmbedding)(
        hidden_dim="${model.hidden_dim}",
        num_levels="${model.num_levels}",
        encode_padding="${model.released_behaviour}",
    ),
    token_scoring=None,
    token_selection=None,
    encoder=L(DeformableEncoder)(
        hidden_dim="${model.hidden_dim}",
        num_levels="${model.num_levels}",
        num_heads=8,
        num_layers=6,
        num_points=4,
        feedforward_dim=1024,
        dropout=0.1,
        checkpoint_activations=False,
        project_after_sampling=None,
    ),
    proposal_projection=None,
    query_selection=L(LearnedQueries)(hidden_dim="${model.hidden_dim}", num_queries=300),
    decoder=L(DeformableDecoder)(
        hidden_dim="${model.hidden_dim}",
        num_levels="${model.num_levels}",
        num_heads="${model.encoder.num_heads}",
        num_layers=6,
        num_points=4,
        feedforward_dim="${model.encoder.feedforward_dim}",
        dropout="${model.encoder.dropout}",
        refine_boxes=False,
        checkpoint_activations=False,
        project_after_sampling=None,
    ),
    heads=L(DetectionHeads)(
        hidden_dim="${model.hidden_dim}",
        num_classes="${model.num_classes}",
        num_decoder_layers="${model.decoder.num_layers}",
        two_stage=False,
        num_encoder_layers="${model.encoder.num_layers}",
        encoder_auxiliary=False,
        individual=False,
    ),
    criterion=L(SetCriterion)(
        matcher=L(HungarianMatcher)(
            class_cost=2.0,
            bbox_cost=5.0,
            giou_cost=2.0,
            class_scores=L(SigmoidClasses)(alpha=0.25, gamma=2.0),
        ),
        class_weight=2.0,
        bbox_weight=5.0,
        giou_weight=2.0,
        token_scoring_weight=1.0,
        token_scoring=None,
        supervise_all_rows="${model.released_behaviour}",
    ),
    postprocess=L(TopDetections)(
        max_detections=100, keep_boxes_outside="${model.released_behaviour}"
    ),
)
