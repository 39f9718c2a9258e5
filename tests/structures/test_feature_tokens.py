"""Order, ratios and reference points of the tokens."""

import torch

from small_tokens import tokens_of

SHAPES = ((4, 6), (2, 3))


def test_levels_follow_each_other_in_the_sequence():
    tokens = tokens_of(SHAPES)
    assert tokens.level_start_index == (0, 24)
    assert tokens.features.shape == (1, 30, 8)


def test_centres_run_along_rows_first():
    rows, columns, levels = tokens_of(SHAPES).geometry.cells
    cells = list(zip(rows.tolist(), columns.tolist(), strict=True))
    assert [cells[i] for i in (0, 1, 6, 24)] == [(0, 0), (0, 1), (1, 0), (0, 0)]
    assert levels.tolist() == [0] * 24 + [1] * 6


def test_valid_ratios_are_x_then_y():
    tokens = tokens_of(SHAPES, [[(2, 6), (1, 3)], [(4, 3), (2, 2)]])
    expected = [[[1.0, 0.5], [1.0, 0.5]], [[0.5, 1.0], [2 / 3, 1.0]]]
    torch.testing.assert_close(tokens.valid_ratios, torch.tensor(expected).double())


def test_a_reference_point_is_the_tokens_own_centre_on_its_own_level():
    tokens = tokens_of(SHAPES, [[(3, 4), (2, 2)]])
    rows, columns, levels = tokens.geometry.cells
    sizes = torch.tensor([(w, h) for h, w in SHAPES]).double()
    own = tokens.reference_points()[0].gather(1, levels[:, None, None].expand(-1, 1, 2))[:, 0]
    torch.testing.assert_close(own, (torch.stack([columns, rows], -1) + 0.5) / sizes[levels])


def test_a_reference_point_lies_at_the_same_share_of_every_levels_valid_part():
    tokens = tokens_of(SHAPES, [[(3, 4), (2, 2)]])
    shares = tokens.reference_points() / tokens.valid_ratios[:, None]
    torch.testing.assert_close(shares[:, :, 0], shares[:, :, 1])


PADDED = [[(3, 4), (2, 2)], [(4, 6), (2, 3)], [(1, 2), (1, 1)]]


def test_reference_points_of_some_tokens_are_those_of_all_of_them():
    tokens = tokens_of(SHAPES, PADDED)
    indices = torch.stack([torch.randperm(30)[:7] for _ in PADDED])
    everything = tokens.reference_points()
    for image, rows in enumerate(indices):
        assert torch.equal(tokens.reference_points(indices)[image], everything[image, rows])


def test_valid_sizes_are_whole_numbers_of_rows_and_columns():
    tokens = tokens_of(SHAPES, PADDED)
    assert tokens.valid_sizes.dtype == torch.int64
    assert tokens.valid_sizes.tolist() == [[list(size) for size in image] for image in PADDED]
    assert tokens.valid_counts == (16, 30, 3)


def test_values_have_extents_only_where_a_token_is_padding():
    assert tokens_of(SHAPES, batch=2).value_extents is None
    assert torch.equal(tokens_of(SHAPES, PADDED).value_extents, torch.tensor(PADDED))
    # Two images of one size in a larger map: padding, although they are alike.
    assert tokens_of(SHAPES, [PADDED[0]] * 2).value_extents is not None


def test_images_that_are_alike_share_their_constants():
    for valid in ([list(SHAPES)] * 2, [PADDED[0]] * 2):
        geometry = tokens_of(SHAPES, valid).geometry
        assert len(geometry.distinct) == 1
        for shared in (geometry.padding_mask, geometry.centres, geometry.proposals[0]):
            assert len(shared) == 2 and shared.stride(0) == 0
