"""Queries made from the best tokens of the memory."""

import math

import pytest
import torch

from small_tokens import tokens_of
from sparse_detr.heads import DetectionHeads
from sparse_detr.query_selection import (
    ProposalProjection,
    Proposals,
    TwoStageQueries,
    proposal_grid,
)
from sparse_detr.structures import EncoderOutput

C = 8
SHAPES = [(3, 4), (2, 2)]


class Stage:
    """A first stage with random weights."""

    def __init__(self, num_queries=5, valid=None, shapes=SHAPES, **switches):
        self.tokens = tokens_of(shapes, valid)
        self.queries = TwoStageQueries(C, num_queries, **switches).double()
        self.heads = DetectionHeads(C, 3, num_decoder_layers=1, two_stage=True).double()
        projection = ProposalProjection(C).double()
        with torch.no_grad():
            for parameter in [*self.heads.parameters(), *projection.parameters()]:
                parameter.add_(0.5 * torch.randn_like(parameter))
        self.proposals = Proposals(proposal_grid(self.tokens), projection)
        self.memory = self.tokens.features.clone().requires_grad_()

    def run(self, with_predictions=True):
        encoded = EncoderOutput(self.memory)
        return self.queries(encoded, self.tokens, self.proposals, self.heads, with_predictions)

    def logits(self):
        projected = self.proposals.project_memory(EncoderOutput(self.memory))
        return self.heads.first_stage().logits(projected)


def test_the_best_class_logit_decides_which_tokens_become_queries():
    stage = Stage()
    expected = stage.logits().amax(-1).topk(5).indices
    assert torch.equal(stage.run().token_indices, expected)


def test_logit_zero_decides_where_the_first_stage_is_class_agnostic():
    stage = Stage(class_specific=False)
    assert torch.equal(stage.run().token_indices, stage.logits()[..., 0].topk(5).indices)
    assert stage.run().first_stage.class_agnostic


def test_references_are_the_boxes_of_the_chosen_tokens_without_gradient():
    got = Stage().run()
    assert not got.reference_points.requires_grad
    rows = got.token_indices[..., None].expand(-1, -1, 4)
    assert torch.equal(got.reference_points, got.first_stage.boxes_cxcywh.gather(1, rows))


def test_content_is_the_memory_of_the_token_with_gradient():
    stage = Stage()
    got = stage.run()
    rows = got.token_indices[0]
    assert torch.equal(got.content[0], stage.memory[0, rows])
    got.content.sum().backward()
    assert (stage.memory.grad[0].sum(-1) != 0).nonzero()[:, 0].tolist() == sorted(rows.tolist())


def test_content_is_made_from_the_box_where_it_does_not_come_from_memory():
    stage = Stage(content_from_memory=False)
    got = stage.run()
    assert stage.queries.position_projection.out_features == 2 * C
    got.content.sum().backward()
    assert stage.memory.grad is None


def test_positions_are_sine_features_of_the_box_through_projection_and_norm():
    stage = Stage()
    got = stage.run()
    box = got.reference_points[0, 0]
    divisors = [10000 ** (2 * (k // 2) / (C // 2)) for k in range(C // 2)]
    features = [
        (math.sin, math.cos)[k % 2](float(coordinate) * 2 * math.pi / divisor)
        for coordinate in box
        for k, divisor in enumerate(divisors)
    ]
    expected = stage.queries.position_norm(
        stage.queries.position_projection(torch.tensor(features).double())
    )
    torch.testing.assert_close(got.position[0, 0], expected)


@pytest.mark.parametrize("switches", [{}, {"content_from_memory": False, "class_specific": False}])
def test_the_queries_are_the_same_with_and_without_predictions_for_the_loss(switches):
    stage = Stage(**switches)
    full, lean = stage.run(True), stage.run(False)
    assert lean.first_stage is None
    for field in ("content", "position", "reference_points", "token_indices"):
        torch.testing.assert_close(getattr(full, field), getattr(lean, field), rtol=0, atol=1e-14)


def test_boxes_are_computed_for_the_chosen_tokens_only_where_no_loss_asks():
    stage = Stage(num_queries=4)
    rows = []
    box_head = stage.heads.first_stage().bbox_embed
    box_head.register_forward_hook(lambda module, args, output: rows.append(args[0].shape[1]))
    stage.run(with_predictions=False)
    stage.run(with_predictions=True)
    assert rows == [4, 16]


def test_the_first_stage_predicts_for_all_tokens_and_marks_the_candidates():
    stage = Stage(valid=[[(2, 4), (1, 2)]])
    first = stage.run().first_stage
    assert first.logits.shape == (1, 16, 3) and first.boxes_cxcywh.shape == (1, 16, 4)
    assert torch.equal(first.candidate_mask, stage.proposals.grid.is_proposal)


def favoured_edge(**switches):
    """All tokens that are no proposal score highest; the outer columns are such tokens."""
    stage = Stage(num_queries=3, shapes=[(1, 60)], **switches)
    with torch.no_grad():
        stage.proposals.projection.norm.weight.zero_()
        stage.proposals.projection.norm.bias.zero_()
    return stage


def test_by_default_a_token_without_proposal_becomes_a_query_only_if_no_other_is_left():
    stage = favoured_edge()  # all scores are equal, the edge comes first by position
    assert stage.run().token_indices[0].tolist() == [1, 2, 3]
    assert (stage.run().reference_points < 1).all()


def test_any_token_competes_lets_them_in_with_the_box_of_ones():
    got = favoured_edge(any_token_competes=True).run()
    assert got.token_indices[0].tolist() == [0, 1, 2]
    assert got.reference_points[0, 0].tolist() == [1, 1, 1, 1]
    assert (got.reference_points[0, 1:] < 1).all()


def test_padding_is_the_last_choice():
    stage = Stage(num_queries=16, valid=[[(2, 3), (1, 1)]])
    own = int((~stage.tokens.padding_mask).sum())
    chosen = stage.run().token_indices[0]
    assert not stage.tokens.padding_mask[0, chosen[:own]].any()


def test_there_are_never_more_queries_than_tokens():
    assert Stage(num_queries=300).run().content.shape[1] == 16


def test_a_width_that_four_coordinates_cannot_share_is_refused():
    with pytest.raises(ValueError, match="divisible by 4"):
        TwoStageQueries(6, 5)
