"""The scoring network."""

import pytest
import torch

from small_tokens import tokens_of
from sparse_detr.query_selection import ProposalProjection, Proposals
from sparse_detr.token_scoring import ScoringNetwork

C = 8


def features(padding=3):
    rows = torch.randn(1, 6 + padding, C).double()
    mask = torch.zeros(1, 6 + padding).bool()
    mask[:, 6:] = True
    return rows, mask


def test_every_token_gets_one_logit():
    rows, mask = features()
    assert ScoringNetwork(C).double().logits(rows, mask).shape == (1, 9)


def test_half_of_the_channels_are_the_mean_over_the_images_own_tokens():
    network = ScoringNetwork(C).double()
    rows, mask = features()
    embedded = network.embed(rows)
    mean = embedded[:, :6, C // 2 :].mean(1, keepdim=True).expand(-1, 9, -1)
    expected = network.score(torch.cat([embedded[..., : C // 2], mean], dim=-1))[..., 0]
    torch.testing.assert_close(network.logits(rows, mask), expected)


def test_no_padding_is_said_by_an_empty_mask_or_by_none():
    network = ScoringNetwork(C).double()
    rows, mask = features(padding=0)
    torch.testing.assert_close(
        network.logits(rows, mask), network.logits(rows, None), rtol=0, atol=1e-13
    )


def test_the_first_product_is_taken_once_per_image_for_the_shared_channels():
    network = ScoringNetwork(C).double()
    rows = torch.randn(2, 5, C).double().requires_grad_()
    embedded = network.embed(rows)
    mean = embedded[..., C // 2 :].mean(1, keepdim=True).expand(-1, 5, -1)
    expected = network.score(torch.cat([embedded[..., : C // 2], mean], dim=-1))[..., 0]
    parameters = [rows, *network.parameters()]
    weight = torch.randn(2, 5).double()
    for one, other in zip(
        torch.autograd.grad((network.logits(rows, None) * weight).sum(), parameters),
        torch.autograd.grad((expected * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_padding_does_not_change_the_scores_of_real_tokens():
    network = ScoringNetwork(C).double()
    rows, mask = features()
    torch.testing.assert_close(
        network.logits(rows, mask)[:, :6],
        network.logits(rows[:, :6], mask[:, :6]),
        rtol=0,
        atol=1e-13,
    )


def test_average_over_padding_makes_the_scores_depend_on_it():
    network = ScoringNetwork(C, average_over_padding=True).double()
    rows, mask = features()
    assert not torch.allclose(
        network.logits(rows, mask)[:, :6], network.logits(rows[:, :6], mask[:, :6])
    )


def test_average_over_padding_changes_nothing_without_padding():
    networks = [ScoringNetwork(C, average_over_padding=flag).double() for flag in (False, True)]
    networks[1].load_state_dict(networks[0].state_dict())
    rows, mask = features(padding=0)
    torch.testing.assert_close(networks[0].logits(rows, mask), networks[1].logits(rows, mask))


def test_the_mean_is_that_of_each_image_alone():
    network = ScoringNetwork(C).double()
    rows = torch.randn(2, 5, C).double()
    none = torch.zeros(2, 5).bool()
    torch.testing.assert_close(network.logits(rows, none)[1:], network.logits(rows[1:], none[1:]))


def test_a_width_that_does_not_halve_twice_is_refused():
    with pytest.raises(ValueError, match="hidden_dim must be divisible by 4"):
        ScoringNetwork(6)


@pytest.mark.parametrize("valid", [None, [[(3, 4)], [(2, 2)]]])
def test_activations_computed_again_give_the_same_scores_and_gradients(valid):
    tokens = tokens_of([(3, 4)], valid, batch=2)
    network, projection = ScoringNetwork(C).double(), ProposalProjection(C).double()
    parameters = [*network.parameters(), *projection.parameters(), tokens.positions.level_embed]
    found = []
    for network.checkpoint_activations in (False, True):
        proposals = Proposals.of(tokens, projection, scored=True)
        logits = network(proposals, tokens).logits
        own = logits[~tokens.padding_mask]
        gradients = torch.autograd.grad(own.square().sum(), parameters, allow_unused=True)
        found.append((own, *(g for g in gradients if g is not None)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
