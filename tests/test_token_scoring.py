"""The scoring network."""

import pytest
import torch

from sparse_detr.token_scoring import ScoringNetwork

C = 8


def features(padding=3):
    rows = torch.randn(1, 6 + padding, C).double()
    mask = torch.zeros(1, 6 + padding).bool()
    mask[:, 6:] = True
    return rows, mask


def test_every_token_gets_one_logit():
    rows, mask = features()
    assert ScoringNetwork(C).double()(rows, mask).shape == (1, 9)


def test_half_of_the_channels_are_the_mean_over_the_images_own_tokens():
    network = ScoringNetwork(C).double()
    rows, mask = features()
    embedded = network.embed(rows)
    mean = embedded[:, :6, C // 2 :].mean(1, keepdim=True).expand(-1, 9, -1)
    expected = network.score(torch.cat([embedded[..., : C // 2], mean], dim=-1))[..., 0]
    torch.testing.assert_close(network(rows, mask), expected)


def test_padding_does_not_change_the_scores_of_real_tokens():
    network = ScoringNetwork(C).double()
    rows, mask = features()
    torch.testing.assert_close(
        network(rows, mask)[:, :6], network(rows[:, :6], mask[:, :6]), rtol=0, atol=1e-13
    )


def test_average_over_padding_makes_the_scores_depend_on_it():
    network = ScoringNetwork(C, average_over_padding=True).double()
    rows, mask = features()
    assert not torch.allclose(network(rows, mask)[:, :6], network(rows[:, :6], mask[:, :6]))


def test_average_over_padding_changes_nothing_without_padding():
    networks = [ScoringNetwork(C, average_over_padding=flag).double() for flag in (False, True)]
    networks[1].load_state_dict(networks[0].state_dict())
    rows, mask = features(padding=0)
    torch.testing.assert_close(networks[0](rows, mask), networks[1](rows, mask))


def test_the_mean_is_that_of_each_image_alone():
    network = ScoringNetwork(C).double()
    rows = torch.randn(2, 5, C).double()
    none = torch.zeros(2, 5).bool()
    torch.testing.assert_close(network(rows, none)[1:], network(rows[1:], none[1:]))


def test_a_width_that_does_not_halve_twice_is_refused():
    with pytest.raises(ValueError, match="hidden_dim must be divisible by 4"):
        ScoringNetwork(6)
