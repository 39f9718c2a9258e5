"""Which part of a map an image covers, and how maps of several groups become one batch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_detr.structures import FeatureMaps, valid_cells


@given(st.integers(1, 400), st.integers(0, 400), st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_the_valid_cells_are_those_of_a_nearest_resize_of_the_mask(image, padding, cells):
    padded = image + padding
    expected = sum(i * padded // cells < image for i in range(cells))
    assert valid_cells(image, padded, cells) == expected


def test_at_least_one_cell_is_always_valid():
    assert valid_cells(1, 1000, 7) == 1


def test_an_image_without_padding_covers_every_cell():
    maps = [torch.zeros(1, 2, 5, 9), torch.zeros(1, 2, 3, 5)]
    covered = FeatureMaps.of_padded_images(maps, [(37, 70)], (37, 70))
    assert covered.valid_sizes == (((5, 9), (3, 5)),)
    assert covered.spatial_shapes == ((5, 9), (3, 5))


def test_levels_of_a_padded_image_are_all_read_from_the_image_mask():
    maps = [torch.zeros(2, 1, *s) for s in ((13, 10), (7, 5), (4, 3), (2, 2))]
    covered = FeatureMaps.of_padded_images(maps, [(50, 80), (100, 40)], (100, 80))
    for (height, width), sizes in zip([(50, 80), (100, 40)], covered.valid_sizes, strict=True):
        mask = torch.zeros(1, 1, 100, 80)
        mask[..., :height, :width] = 1
        for level, size in zip(maps, sizes, strict=True):
            resized = F.interpolate(mask, level.shape[-2:], mode="nearest")[0, 0]
            assert (int(resized[:, 0].sum()), int(resized[0].sum())) == size


def parts():
    small = FeatureMaps.of_padded_images([torch.ones(2, 3, 2, 3)], [(16, 24)] * 2, (16, 24))
    large = FeatureMaps.of_padded_images([2 * torch.ones(1, 3, 4, 2)], [(32, 16)], (32, 16))
    return small, large


def test_merging_groups_puts_every_image_back_at_its_place():
    small, large = parts()
    merged = FeatureMaps.merge([small, large], [(0, 2), (1,)])
    assert merged.maps[0].shape == (3, 3, 4, 3)
    assert merged.valid_sizes == (((2, 3),), ((4, 2),), ((2, 3),))
    assert (merged.maps[0][[0, 2], :, :2, :3] == 1).all()
    assert (merged.maps[0][1, :, :4, :2] == 2).all()


def test_merging_fills_what_an_image_does_not_cover_with_zero():
    small, large = parts()
    merged = FeatureMaps.merge([small, large], [(0, 2), (1,)])
    assert (merged.maps[0][[0, 2], :, 2:] == 0).all()
    assert (merged.maps[0][1, :, :, 2:] == 0).all()


def test_merging_one_group_copies_nothing():
    (part,) = parts()[:1]
    assert FeatureMaps.merge([part], [(0, 1)]) is part


@pytest.mark.parametrize("order", [[(2, 0), (1,)], [(1, 2), (0,)]])
def test_merging_follows_the_positions_not_the_order_of_the_groups(order):
    small, large = parts()
    merged = FeatureMaps.merge([small, large], order)
    for position in order[0]:
        assert merged.valid_sizes[position] == ((2, 3),)
    assert merged.valid_sizes[order[1][0]] == ((4, 2),)


def test_merging_keeps_the_size_of_every_image_and_the_strides():
    def part(count, size):
        map_ = torch.ones(count, 3, size[0] // 8, size[1] // 8)
        return FeatureMaps.of_padded_images([map_], [size] * count, size, (8,))

    merged = FeatureMaps.merge([part(2, (16, 24)), part(1, (32, 16))], [(2, 0), (1,)])
    assert merged.image_sizes == ((16, 24), (32, 16), (16, 24))
    assert merged.strides == (8,)


def test_maps_that_come_from_no_images_merge_without_sizes():
    maps = FeatureMaps((torch.ones(1, 3, 2, 3),), (((2, 3),),))
    merged = FeatureMaps.merge([maps, maps], [(1,), (0,)])
    assert merged.image_sizes is None and merged.strides is None


def test_a_derived_level_is_covered_where_the_level_before_is():
    maps = [torch.zeros(1, 1, *s) for s in ((4, 5), (2, 3))]
    own = FeatureMaps.of_padded_images(maps, [(104, 90)], (104, 136))
    derived = FeatureMaps.of_padded_images(maps, [(104, 90)], (104, 136), derived_levels=1)
    assert own.valid_sizes == (((4, 4), (2, 2)),)
    assert derived.valid_sizes == (((4, 4), (2, 3)),)
