"""Mixed queries: positions from the best tokens, content that is learned."""

import pytest
import torch

from small_tokens import tokens_of
from sparse_detr.heads import DetectionHeads
from sparse_detr.query_selection import (
    ContrastiveDenoising,
    MixedQueries,
    ProposalProjection,
    Proposals,
    proposal_grid,
)
from sparse_detr.structures import EncoderOutput, Targets, gather_rows

C, Q = 8, 5
SHAPES = [(3, 4), (2, 2)]


class Stage:
    """A first stage with random weights."""

    def __init__(self, valid=None, **switches):
        self.tokens = tokens_of(SHAPES, valid)
        self.queries = MixedQueries(C, Q, **switches).double()
        self.heads = DetectionHeads(C, 3, num_decoder_layers=1, two_stage=True).double()
        projection = ProposalProjection(C).double()
        with torch.no_grad():
            for parameter in [*self.heads.parameters(), *projection.parameters()]:
                parameter.add_(0.5 * torch.randn_like(parameter))
        self.proposals = Proposals(proposal_grid(self.tokens), projection)
        self.encoded = EncoderOutput(self.tokens.features.clone().requires_grad_())

    def run(self, with_predictions=True, targets=None):
        return self.queries(
            self.encoded, self.tokens, self.proposals, self.heads, with_predictions, targets
        )


def test_the_best_tokens_say_where_and_the_content_is_learned():
    stage = Stage()
    got = stage.run()
    head = stage.heads.first_stage()
    projected = stage.proposals.project_memory(stage.encoded)
    logits = head.logits(projected)
    indices = logits.amax(-1).topk(Q).indices
    assert torch.equal(got.token_indices, indices)
    boxes = head.boxes_from_logits(projected, stage.proposals.grid.box_logits)
    torch.testing.assert_close(got.reference_points, gather_rows(boxes, indices))
    assert not got.reference_points.requires_grad
    assert got.position is None
    assert torch.equal(got.content[0], stage.queries.content.weight)


def test_the_first_stage_answers_for_the_chosen_tokens_alone():
    got = Stage().run().first_stage
    assert got.logits.shape == (1, Q, 3) and got.boxes_cxcywh.requires_grad
    assert Stage().run(with_predictions=False).first_stage is None


def test_rows_of_an_image_with_fewer_tokens_than_queries_are_marked():
    got = Stage(valid=[SHAPES, [(1, 2), (1, 1)]]).run()
    assert got.query_mask[1].sum() == 3 and got.query_mask[0].all()
    released = Stage(valid=[SHAPES, [(1, 2), (1, 1)]], any_token_competes=True).run()
    assert released.query_mask is None


@pytest.mark.parametrize("given", [True, False])
def test_denoising_queries_come_with_targets_alone(given):
    stage = Stage(denoising=ContrastiveDenoising(C, 3, denoising_number=2))
    targets = [Targets(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]).double())]
    got = stage.run(targets=targets if given else None)
    assert (got.denoising is not None) is given
    assert got.content.shape[1] == Q + (4 if given else 0)
    assert got.token_indices.shape == (1, Q)
