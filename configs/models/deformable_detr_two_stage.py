"""Deformable DETR, two-stage, with the original query initialisation."""

from detectron2.config import LazyCall as L

from sparse_detr.query_selection import ProposalProjection, TwoStageQueries

from .deformable_detr_box_refinement import model

model.heads.two_stage = True
model.proposal_projection = L(ProposalProjection)(hidden_dim="${model.hidden_dim}")
model.query_selection = L(TwoStageQueries)(
    hidden_dim="${model.hidden_dim}",
    num_queries=300,
    class_specific=False,
    content_from_memory=False,
    any_token_competes="${model.released_behaviour}",
)
