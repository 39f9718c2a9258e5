"""Foreground scores: each level is led by the coarser one."""

import pytest
import torch
import torch.nn.functional as F

from small_tokens import tokens_of
from sparse_detr.query_selection import ProposalProjection, Proposals
from sparse_detr.token_scoring import ForegroundScoring

C = 8
SHAPES = [(6, 8), (3, 4), (2, 2)]
VALID = [[(6, 8), (3, 4), (2, 2)], [(4, 5), (2, 3), (1, 2)]]


def scoring(**switches):
    part = ForegroundScoring(C, 3, **switches).double()
    with torch.no_grad():
        part.alpha.copy_(torch.tensor([0.7, -0.4]))
    return part


def scores_by_level(part, projected, shapes=SHAPES):
    sizes = [height * width for height, width in shapes]
    tokens = tokens_of(shapes, batch=len(projected))
    return part.logits(projected, tokens).split_with_sizes(sizes, dim=1)


def projected_tokens(batch=1):
    return torch.randn(batch, sum(h * w for h, w in SHAPES), C).double()


def test_the_coarsest_level_is_scored_as_it_is():
    part, rows = scoring(), projected_tokens()
    coarsest = scores_by_level(part, rows)[-1]
    torch.testing.assert_close(coarsest, part.network.logits(rows[:, -4:], None))


def test_a_level_is_scaled_by_the_resized_logits_of_the_coarser_one_and_its_own_factor():
    part, rows = scoring(), projected_tokens()
    fine, middle, coarse = scores_by_level(part, rows)
    for scores, lead, factor, (start, end), (lead_size, size) in (
        (middle, coarse, 0.7, (48, 60), (SHAPES[2], SHAPES[1])),
        (fine, middle, -0.4, (0, 48), (SHAPES[1], SHAPES[0])),
    ):
        maps = lead.view(1, 1, *lead_size)
        up = F.interpolate(maps, size, mode="bilinear", align_corners=True).flatten(1)
        scaled = rows[:, start:end] * (1 + factor * up[..., None])
        torch.testing.assert_close(scores, part.network.logits(scaled, None))


def test_all_levels_and_factors_learn_from_the_finest_one():
    part, rows = scoring(), projected_tokens().requires_grad_()
    scores_by_level(part, rows)[0].sum().backward()
    assert (part.alpha.grad != 0).all()
    assert (rows.grad.abs().sum(-1) > 0).all()


def test_padding_changes_no_score_of_an_images_own_tokens():
    part, projected = scoring(), projected_tokens(2)
    tokens = tokens_of(SHAPES, VALID)
    together = part.logits(projected, tokens)[1, ~tokens.padding_mask[1]]
    own = projected[1:, ~tokens.padding_mask[1]]
    alone = part.logits(own, tokens_of(VALID[1]))[0]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-13)


def test_average_over_padding_makes_the_scores_depend_on_it():
    part, projected = scoring(average_over_padding=True), projected_tokens(2)
    tokens = tokens_of(SHAPES, VALID)
    together = part.logits(projected, tokens)[1, ~tokens.padding_mask[1]]
    own = projected[1:, ~tokens.padding_mask[1]]
    assert not torch.allclose(together, part.logits(own, tokens_of(VALID[1]))[0])


def test_average_over_padding_changes_nothing_without_padding():
    parts = [scoring(average_over_padding=flag) for flag in (False, True)]
    parts[1].load_state_dict(parts[0].state_dict())
    rows = projected_tokens(2)
    for one, other in zip(*(scores_by_level(part, rows) for part in parts), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("valid", [None, VALID])
def test_activations_computed_again_give_the_same_scores_and_gradients(valid):
    tokens = tokens_of(SHAPES, valid, batch=2)
    part, projection = scoring(), ProposalProjection(C).double()
    parameters = [*part.parameters(), *projection.parameters(), tokens.positions.level_embed]
    found = []
    for part.checkpoint_activations in (False, True):
        proposals = Proposals.of(tokens, projection, scored=True)
        scores = part(proposals, tokens)
        assert scores.predictions is None
        own = scores.logits[~tokens.padding_mask]
        found.append((own, *torch.autograd.grad(own.square().sum(), parameters)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_factors_start_small_on_both_sides_of_zero():
    alphas = torch.cat([ForegroundScoring(C, 4).alpha.detach() for _ in range(50)])
    assert alphas.abs().max() <= 0.3 and alphas.min() < -0.1 and alphas.max() > 0.1


def test_one_level_alone_is_refused():
    with pytest.raises(ValueError, match="num_levels must be at least 2"):
        ForegroundScoring(C, 1)
