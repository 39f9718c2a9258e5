"""SMCA's encoder of convolutions."""

from dataclasses import dataclass

import pytest
import torch

from small_tokens import kept, tokens_of
from sparse_detr.encoder import ConvolutionEncoder
from sparse_detr.encoder.convolution_encoder import by_cover, maps_of, rows_of
from sparse_detr.structures import TokenSelection

SHAPES = ((13, 17), (7, 9), (4, 5), (2, 3))
SMALL = ((10, 11), (5, 6), (3, 3), (2, 2))


def encoder(**options):
    torch.manual_seed(0)
    return ConvolutionEncoder(8, 4, 2, 3, feedforward_dim=12, dropout=0.0, **options).double()


@pytest.fixture
def padded():
    return tokens_of(SHAPES, [SHAPES, SMALL])


@dataclass
class Given:
    """Positions that are at hand."""

    position: torch.Tensor

    def everywhere(self):
        return self.position


def cropped(tokens, image):
    """What one image covers, as a batch of its own."""
    covered = tokens.geometry.covered[image]
    maps = maps_of(tokens.features[image : image + 1], tokens.spatial_shapes)
    alone = tokens_of(covered)
    own = [m[..., :h, :w] for m, (h, w) in zip(maps, covered, strict=True)]
    return type(alone)(rows_of(own), alone.positions, alone.geometry)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("pointwise", [False, True])
def test_the_finest_level_leaves_at_half_its_size(separate, pointwise):
    part = encoder(separate_crossings=separate, pointwise=pointwise)
    encoded = part(tokens_of(SHAPES), None)
    sequence = encoded.sequence
    assert sequence.spatial_shapes == (SHAPES[1], *SHAPES[1:])
    assert encoded.memory.shape == (1, 2 * 63 + 20 + 6, 8)
    assert torch.equal(sequence.position[:, :63], sequence.position[:, 63:126])


def test_an_image_gets_alone_what_it_gets_beside_a_larger_one(padded):
    part = encoder()
    together = part(padded, None)
    maps = maps_of(together.memory, together.sequence.spatial_shapes)
    position = maps_of(padded.position, SHAPES)
    for image in (0, 1):
        tokens = cropped(padded, image)
        own = padded.geometry.covered[image]
        given = [m[image : image + 1, :, :h, :w] for m, (h, w) in zip(position, own, strict=True)]

        alone = part(type(tokens)(tokens.features, Given(rows_of(given)), tokens.geometry), None)
        expected = maps_of(alone.memory, alone.sequence.spatial_shapes)
        for got, wanted in zip(maps, expected, strict=True):
            height, width = wanted.shape[-2:]
            torch.testing.assert_close(got[image : image + 1, :, :height, :width], wanted)


def test_padding_leaks_in_the_released_behaviour(padded):
    default, released = (encoder(padding_takes_part=flag)(padded, None) for flag in (False, True))
    rows = ~default.sequence.padding_mask
    assert (default.memory - released.memory)[0].abs().max() < 1e-12  # it covers everything
    assert (default.memory - released.memory)[1][rows[1]].abs().max() > 1e-3


def test_images_are_grouped_by_what_they_cover_and_put_back_in_order():
    maps = [torch.arange(3.0)[:, None, None, None].expand(3, 1, 4, 4)]
    seen = []

    def doubled(parts):
        seen.append(tuple(parts[0].shape))
        return [2 * parts[0]]

    (got,) = by_cover(doubled, maps, (((4, 4),), ((2, 3),), ((4, 4),)))
    assert seen == [(2, 1, 4, 4), (1, 1, 2, 3)]
    assert got[:, 0, 0, 0].tolist() == [0, 2, 4]
    assert got[1].sum() == 2 * 6 and got[1, 0, 2:].abs().sum() == 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
        ConvolutionEncoder(8, 1)
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4"):
        ConvolutionEncoder(8, 2, kernel_size=4)
    selection = TokenSelection((kept([[0, 1]], [2]),))
    with pytest.raises(ValueError, match="token_selection must be None for a ConvolutionEncoder"):
        encoder()(tokens_of(SHAPES), selection)
