"""Box proposals of the tokens and their ranking."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_tokens import kept, tokens_of
from sparse_detr.query_selection import (
    ProposalProjection,
    Proposals,
    proposal_grid,
    top_tokens,
)
from sparse_detr.query_selection.encoder_proposals import ProposalGrid
from sparse_detr.structures import EncoderOutput

INFINITY = float("inf")


def test_a_proposal_is_its_cell_with_a_side_that_doubles_per_level():
    grid = proposal_grid(tokens_of([(4, 5), (2, 3)]))
    boxes = grid.box_logits.sigmoid()[0]
    torch.testing.assert_close(boxes[7], torch.tensor([2.5 / 5, 1.5 / 4, 0.05, 0.05]).double())
    torch.testing.assert_close(boxes[24], torch.tensor([1.5 / 3, 1.5 / 2, 0.1, 0.1]).double())


def test_centres_are_relative_to_the_valid_cells():
    grid = proposal_grid(tokens_of([(4, 6)], [[(2, 3)]]))
    boxes = grid.box_logits.sigmoid()[0].view(4, 6, 4)
    torch.testing.assert_close(boxes[1, 2, :2], torch.tensor([2.5 / 3, 1.5 / 2]).double())


def test_padding_is_no_proposal():
    tokens = tokens_of([(4, 6)], [[(2, 3)], [(4, 6)]])
    assert torch.equal(proposal_grid(tokens).is_proposal, ~tokens.padding_mask)


@pytest.mark.parametrize(("width", "edge"), [(49, False), (50, True), (51, True), (60, True)])
def test_the_outer_columns_are_no_proposals_where_a_map_is_50_cells_wide(width, edge):
    grid = proposal_grid(tokens_of([(1, width)]))
    assert grid.is_proposal[0].tolist() == [not edge] + [True] * (width - 2) + [not edge]


def test_a_token_without_proposal_has_the_box_of_ones():
    grid = proposal_grid(tokens_of([(4, 6)], [[(2, 3)]]))
    logits = grid.box_logits[~grid.is_proposal]
    assert (logits == INFINITY).all() and (logits.sigmoid() == 1).all()
    assert not grid.box_logits.isnan().any()


def test_logits_are_those_of_the_boxes():
    logits = proposal_grid(tokens_of([(3, 3)])).box_logits[0, 4]
    assert logits[0] == pytest.approx(0.0, abs=1e-12)
    assert logits[2] == pytest.approx(math.log(0.05 / 0.95))


def grid_of(is_proposal):
    mask = torch.tensor(is_proposal)
    return ProposalGrid(torch.zeros(*mask.shape, 4), mask, (~mask).flatten().nonzero()[:, 0])


def test_real_proposals_rank_before_edge_tokens_and_those_before_padding():
    grid = grid_of([[True, False, True, False, True]])
    padding = torch.tensor([[False, False, False, True, False]])
    ranked = grid.rank_last(torch.tensor([[-5.0, 9.0, 1.0, 99.0, 0.0]]), padding)
    assert ranked.argsort(descending=True)[0].tolist() == [2, 4, 0, 1, 3]


def test_ranking_leaves_the_scores_of_real_proposals():
    grid = grid_of([[True, False, True]])
    ranked = grid.rank_last(torch.tensor([[0.25, 9.0, -3.0]]), torch.zeros(1, 3).bool())
    assert ranked[0, [0, 2]].tolist() == [0.25, -3.0]


def test_an_image_without_any_proposal_still_ranks_its_own_tokens_before_padding():
    ranked = grid_of([[False, False, False]]).rank_last(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[True, False, False]])
    )
    assert ranked[0, 1:].isfinite().all() and ranked[0, 0] == -INFINITY


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_edge_tokens_rank_last_in_every_precision(dtype):
    grid = grid_of([[False, True, True]])
    scores = torch.tensor([[0.0, -3000.0, 5.0]], dtype=dtype)
    ranked = grid.rank_last(scores, torch.zeros(1, 3).bool())
    assert top_tokens(ranked, 3)[0].tolist() == [2, 1, 0]


def test_ties_go_to_the_earlier_token():
    assert top_tokens(torch.tensor([[1.0, 3.0, 1.0, 3.0, 1.0]]), 4)[0].tolist() == [1, 3, 0, 2]


def test_a_tie_is_settled_alike_however_much_padding_follows():
    scores = torch.zeros(1, 40)
    padded = torch.cat([scores, torch.full((1, 5000), -INFINITY)], dim=1)
    assert torch.equal(top_tokens(scores, 7), top_tokens(padded, 7))


def test_tokens_that_are_no_proposals_all_project_to_one_vector():
    projection = ProposalProjection(8)
    with torch.no_grad():
        projection.projection.bias.normal_()
    rows = projection(torch.randn(1, 4, 8), grid_of([[True, False, False, True]]))
    assert torch.equal(rows[0, 1], rows[0, 2])
    assert torch.equal(rows[0, 1], projection.norm(projection.projection.bias))
    assert not torch.allclose(rows[0, 0], rows[0, 3])


def test_what_stands_on_padding_cannot_leak_even_if_it_is_not_finite():
    features = torch.randn(1, 3, 8)
    features[0, 1] = float("nan")
    features.requires_grad_()
    rows = ProposalProjection(8)(features, grid_of([[True, False, True]]))
    rows.square().sum().backward()
    assert rows.isfinite().all() and features.grad.isfinite().all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, INFINITY, -INFINITY]),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.integers(1, 3),
)
def test_the_highest_scores_are_those_that_a_stable_sort_puts_first(values, dtype, batch):
    noise = torch.randint(0, 2, (batch, len(values)))
    scores = torch.tensor(values).to(dtype) * noise  # makes NaN of infinity, too
    expected = scores.sort(dim=1, descending=True, stable=True).indices
    for count in (0, 1, len(values) // 2, len(values)):
        assert torch.equal(top_tokens(scores, count), expected[:, :count])


SHARED = [(4, 60), (2, 3)]  # the outer columns of the first level are no proposals
VALID = [[(4, 60), (2, 3)], [(2, 30), (1, 2)]]


def shared_and_direct(dtype=torch.float64):
    """Proposals with and without what token scoring and first stage share."""
    tokens = tokens_of(SHARED, VALID)
    features = tokens.features.to(dtype).requires_grad_()
    tokens = dataclasses.replace(tokens, features=features)
    projection = ProposalProjection(8).to(dtype)
    with torch.no_grad():
        for parameter in projection.parameters():
            parameter.add_(torch.randn_like(parameter))
    both = [Proposals.of(tokens, projection, scored) for scored in (True, False)]
    assert both[0].linear is not None and both[1].linear is None
    return tokens, both


def gradients(output, tokens, proposals):
    inputs = [tokens.features, tokens.positions.level_embed, *proposals.projection.parameters()]
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(5)).double()
    loss = (output * weight).sum()
    return torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_the_product_with_the_position_may_be_taken_apart():
    tokens, both = shared_and_direct()
    outputs = [p.project_positioned(tokens) for p in both]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-13)
    assert_same(*(gradients(o, tokens, p) for o, p in zip(outputs, both, strict=True)))


@pytest.mark.parametrize("counts", [[3, 3], [3, 1], [0, 2]])
def test_the_first_stage_projects_only_the_tokens_that_the_encoder_changed(counts):
    tokens, both = shared_and_direct()
    rows = kept([[3, 60, 241], [31, 0, 2]], counts)  # edge tokens and padding among them
    memory = rows.scatter(tokens.features, torch.randn(2, 3, 8).double())
    seen = []
    both[0].projection.projection.register_forward_hook(
        lambda module, args, output: seen.append(args[0].shape[1])
    )
    outputs = [p.project_memory(EncoderOutput(memory, (), rows)) for p in both]
    assert seen == [3, 246]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-13)
    assert_same(*(gradients(o, tokens, p) for o, p in zip(outputs, both, strict=True)))


def test_tokens_that_any_layer_may_have_changed_are_all_projected():
    tokens, both = shared_and_direct()
    memory = torch.randn_like(tokens.features)
    outputs = [p.project_memory(EncoderOutput(memory)) for p in both]
    assert torch.equal(*outputs)


def test_a_trace_gives_tokens_without_proposal_the_same_vector():
    tokens, (shared, _) = shared_and_direct()
    traced = Proposals(
        dataclasses.replace(shared.grid, others=None), shared.projection, shared.linear
    )
    assert torch.equal(traced.project_positioned(tokens), shared.project_positioned(tokens))
