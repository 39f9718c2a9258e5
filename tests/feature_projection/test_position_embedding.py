"""Sine positions, level embedding and padding of the tokens."""

import math

import pytest
import torch

from sparse_detr.feature_projection import PositionEmbedding, padding_mask
from sparse_detr.structures import FeatureMaps

SHAPE = (4, 6)


def tokens(valid, hidden_dim=8, **switches):
    maps = torch.arange(len(valid) * hidden_dim * 24.0).view(len(valid), hidden_dim, *SHAPE)
    embedding = PositionEmbedding(hidden_dim, 1, **switches).double()
    torch.nn.init.zeros_(embedding.level_embed)
    return embedding(FeatureMaps((maps.double(),), tuple((v,) for v in valid)))


def test_y_features_come_first_and_follow_the_formula():
    position = tokens([(3, 4)]).position[0].view(*SHAPE, 8)
    phase_y = 1.5 / (3 + 1e-6) * 2 * math.pi
    phase_x = 2.5 / (4 + 1e-6) * 2 * math.pi
    expected = [
        f(phase / divisor)
        for phase in (phase_y, phase_x)
        for divisor in (1, 100)
        for f in (math.sin, math.cos)
    ]
    torch.testing.assert_close(position[1, 2], torch.tensor(expected).double())


def test_positions_are_relative_to_the_image_not_to_the_padded_map():
    padded = tokens([(2, 3)]).position[0].view(*SHAPE, 8)
    small = PositionEmbedding(8, 1).double()
    torch.nn.init.zeros_(small.level_embed)
    cropped = small(FeatureMaps((torch.zeros(1, 8, 2, 3).double(),), (((2, 3),),)))
    torch.testing.assert_close(padded[:2, :3].reshape(-1, 8), cropped.position[0])


def test_padding_has_position_zero_by_default():
    got = tokens([(2, 3)])
    assert (got.position[got.padding_mask] == 0).all()
    assert (got.position[~got.padding_mask] != 0).any(-1).all()


def test_encode_padding_changes_positions_on_padding_only():
    default, released = tokens([(2, 3)]), tokens([(2, 3)], encode_padding=True)
    differs = (default.position != released.position).any(-1)
    assert torch.equal(differs, default.padding_mask)


def test_every_level_adds_its_own_embedding():
    embedding = PositionEmbedding(8, 2)
    maps = tuple(torch.zeros(1, 8, *SHAPE) for _ in range(2))
    position = embedding(FeatureMaps(maps, ((SHAPE, SHAPE),))).position[0]
    torch.testing.assert_close(
        position[24:] - position[:24],
        (embedding.level_embed[1] - embedding.level_embed[0]).expand(24, -1),
    )


def test_tokens_are_the_cells_row_by_row_without_position():
    got = tokens([SHAPE])
    maps = torch.arange(8 * 24.0).view(8, 24).double()
    assert torch.equal(got.features[0], maps.T)


def test_the_mask_marks_everything_outside_the_rectangle():
    mask = padding_mask((3, 4), [(2, 3), (3, 4)], torch.device("cpu"))
    assert mask[0].tolist() == [[False] * 3 + [True]] * 2 + [[True] * 4]
    assert not mask[1].any()


def test_counts_are_the_tokens_outside_the_padding():
    got = tokens([(2, 3), (4, 6)])
    assert got.valid_counts == (6, 24)
    assert (~got.padding_mask).sum(1).tolist() == [6, 24]


def test_half_precision_maps_get_positions_in_float32():
    maps = torch.zeros(1, 8, *SHAPE, dtype=torch.bfloat16)
    got = PositionEmbedding(8, 1)(FeatureMaps((maps,), (((2, 3),),)))
    assert got.position.dtype == torch.float32 and got.valid_sizes.dtype == torch.float32


def test_a_width_that_sine_and_cosine_of_two_axes_cannot_share_is_refused():
    with pytest.raises(ValueError, match="hidden_dim must be divisible by 4"):
        PositionEmbedding(6, 1)


def test_a_wrong_number_of_levels_is_refused():
    with pytest.raises(ValueError, match="num_levels=2 levels, got 1"):
        PositionEmbedding(8, 2)(FeatureMaps((torch.zeros(1, 8, *SHAPE),), ((SHAPE,),)))
