"""Order, ratios and reference points of the tokens."""

import torch

from small_tokens import tokens_of

SHAPES = ((4, 6), (2, 3))


def test_levels_follow_each_other_in_the_sequence():
    tokens = tokens_of(SHAPES)
    assert tokens.level_start_index == (0, 24)
    assert tokens.features.shape == (1, 30, 8)


def test_centres_run_along_rows_first():
    centres, levels = tokens_of(SHAPES).cell_centres()
    assert centres[0].tolist() == [0.5, 0.5]
    assert centres[1].tolist() == [1.5, 0.5]
    assert centres[6].tolist() == [0.5, 1.5]
    assert centres[24].tolist() == [0.5, 0.5]
    assert levels.tolist() == [0] * 24 + [1] * 6


def test_valid_ratios_are_x_then_y():
    tokens = tokens_of(SHAPES, [[(2, 6), (1, 3)], [(4, 3), (2, 2)]])
    expected = [[[1.0, 0.5], [1.0, 0.5]], [[0.5, 1.0], [2 / 3, 1.0]]]
    torch.testing.assert_close(tokens.valid_ratios, torch.tensor(expected).double())


def test_a_reference_point_is_the_tokens_own_centre_on_its_own_level():
    tokens = tokens_of(SHAPES, [[(3, 4), (2, 2)]])
    centres, levels = tokens.cell_centres()
    sizes = torch.tensor([(w, h) for h, w in SHAPES]).double()
    own = tokens.reference_points()[0].gather(1, levels[:, None, None].expand(-1, 1, 2))[:, 0]
    torch.testing.assert_close(own, centres / sizes[levels])


def test_a_reference_point_lies_at_the_same_share_of_every_levels_valid_part():
    tokens = tokens_of(SHAPES, [[(3, 4), (2, 2)]])
    shares = tokens.reference_points() / tokens.valid_ratios[:, None]
    torch.testing.assert_close(shares[:, :, 0], shares[:, :, 1])
