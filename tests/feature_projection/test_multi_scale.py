"""Projection of the backbone's maps to levels of one width."""

import pytest
import torch

from sparse_detr.feature_projection import MultiScaleProjection

CHANNELS = {"c3": 4, "c4": 6, "c5": 10}


def features(height=37, width=50):
    sizes = [(-(-height // s), -(-width // s)) for s in (1, 2, 4)]
    return {n: torch.rand(2, c, *s) for (n, c), s in zip(CHANNELS.items(), sizes, strict=True)}


@pytest.mark.parametrize("num_levels", [3, 4, 5])
def test_every_level_has_the_hidden_width_and_extra_levels_halve_rounding_up(num_levels):
    levels = MultiScaleProjection(CHANNELS, 8, num_levels, num_groups=2)(features())
    assert [tuple(m.shape) for m in levels] == [
        (2, 8, 37, 50),
        (2, 8, 19, 25),
        (2, 8, 10, 13),
        (2, 8, 5, 7),
        (2, 8, 3, 4),
    ][:num_levels]


def test_the_first_extra_level_is_made_from_the_raw_last_map():
    module = MultiScaleProjection(CHANNELS, 8, 4, num_groups=2)
    given = features()
    expected = module.projections[3](given["c5"])
    assert torch.equal(module(given)[3], expected)
    assert module.projections[3][0].in_channels == CHANNELS["c5"]


def test_further_extra_levels_are_made_from_the_level_before():
    module = MultiScaleProjection(CHANNELS, 8, 5, num_groups=2)
    levels = module(features())
    assert torch.equal(levels[4], module.projections[4](levels[3]))


def test_maps_are_taken_by_name_whatever_order_the_backbone_gives():
    module = MultiScaleProjection(CHANNELS, 8, 3, num_groups=2)
    given = features()
    shuffled = {name: given[name] for name in ("c5", "c3", "c4")}
    for a, b in zip(module(given), module(shuffled), strict=True):
        assert torch.equal(a, b)


def test_levels_are_normalised_per_group_and_not_rectified():
    level = MultiScaleProjection(CHANNELS, 8, 3, num_groups=2)(features())[0]
    groups = level.view(2, 2, -1)
    torch.testing.assert_close(groups.mean(-1), torch.zeros(2, 2), atol=1e-5, rtol=0)
    assert (level < 0).any()


def test_fewer_levels_than_maps_are_refused():
    with pytest.raises(ValueError, match="num_levels must be at least"):
        MultiScaleProjection(CHANNELS, 8, 2)


def test_without_groups_a_single_level_is_one_convolution_with_bias():
    module = MultiScaleProjection({"c5": 10}, 8, 1, num_groups=None)
    given = features()
    (level,) = module(given)
    weight, bias = module.parameters()
    expected = torch.einsum("bchw,oc->bohw", given["c5"], weight[..., 0, 0])
    torch.testing.assert_close(level, expected + bias[:, None, None])


def test_without_xavier_start_convolutions_start_as_torchs_do():
    torch.manual_seed(3)
    module = MultiScaleProjection({"a": 16}, 8, 1, num_groups=None, xavier_start=False)
    torch.manual_seed(3)
    convolution = torch.nn.Conv2d(16, 8, kernel_size=1)
    assert torch.equal(module.projections[0][0].weight, convolution.weight)
    assert torch.equal(module.projections[0][0].bias, convolution.bias)
