"""The attention module around the operator."""

import math

import pytest
import torch

from sparse_detr.layers.deformable_attention import MultiScaleDeformableAttention
from sparse_detr.layers.ms_deform_attn_reference import ms_deform_attn_torch

C, H, L, P = 8, 2, 2, 3
SHAPES = [(4, 5), (2, 3)]
N = 26


def attention(randomised=True):
    module = MultiScaleDeformableAttention(C, H, L, P).double()
    if randomised:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def inputs(coordinates=2):
    query, source = torch.randn(1, 4, C).double(), torch.randn(1, N, C).double()
    return query, (0.2 + 0.6 * torch.rand(1, 4, L, coordinates)).double(), source


def test_offsets_from_points_are_in_cells_of_each_level():
    module = attention()
    query, points, source = inputs()
    _, sampling = module(query, points, source, SHAPES)
    offsets = module.sampling_offsets(query).view(1, 4, H, L, P, 2)
    cells = torch.tensor([(w, h) for h, w in SHAPES]).double()[:, None]
    torch.testing.assert_close(sampling.locations, points[:, :, None, :, None] + offsets / cells)


def test_offsets_from_boxes_are_in_half_sizes_shared_by_the_points():
    module = attention()
    query, boxes, source = inputs(4)
    _, sampling = module(query, boxes, source, SHAPES)
    offsets = module.sampling_offsets(query).view(1, 4, H, L, P, 2)
    boxes = boxes[:, :, None, :, None]
    expected = boxes[..., :2] + offsets / P * boxes[..., 2:] / 2
    torch.testing.assert_close(sampling.locations, expected)


def test_weights_sum_to_one_over_levels_and_points_of_each_head():
    query, points, source = inputs()
    _, sampling = attention()(query, points, source, SHAPES)
    torch.testing.assert_close(sampling.weights.sum((-1, -2)), torch.ones(1, 4, H).double())


def test_the_output_is_the_projected_operator_on_the_projected_values():
    module = attention()
    query, points, source = inputs()
    got, sampling = module(query, points, source, SHAPES)
    value = module.value_proj(source).view(1, N, H, C // H)
    expected = ms_deform_attn_torch(value, SHAPES, sampling.locations, sampling.weights)
    torch.testing.assert_close(got, module.output_proj(expected))


def test_values_on_padding_are_zero_after_the_projection_so_the_bias_counts_nothing():
    module = attention()
    query, points, source = inputs()
    everything = torch.ones(1, N).bool()
    got, _ = module(query, points, source, SHAPES, everything)
    torch.testing.assert_close(got, module.output_proj.bias.expand(1, 4, C))


def test_heads_start_looking_in_evenly_spread_directions_farther_with_each_point():
    module = MultiScaleDeformableAttention(8, 8, 2, 3)
    bias = module.sampling_offsets.bias.view(8, 2, 3, 2)
    for head in range(8):
        direction = torch.tensor([math.cos(head * math.pi / 4), math.sin(head * math.pi / 4)])
        direction = direction / direction.abs().max()
        for point in range(3):
            for level in range(2):
                torch.testing.assert_close(
                    bias[head, level, point], direction * (point + 1), atol=1e-5, rtol=0
                )


def test_it_starts_with_equal_weights_whatever_the_query():
    module = attention(randomised=False)
    query, points, source = inputs()
    _, sampling = module(query, points, source, SHAPES)
    torch.testing.assert_close(sampling.weights, torch.full_like(sampling.weights, 1 / (L * P)))
    assert (module.sampling_offsets.weight == 0).all()
    assert (module.value_proj.bias == 0).all() and (module.output_proj.bias == 0).all()


def test_autocast_keeps_locations_and_weights_in_float32():
    module = MultiScaleDeformableAttention(C, H, L, P)
    query, points, source = (t.float() for t in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        got, sampling = module(query, points, source, SHAPES)
    _, expected = module(query, points, source, SHAPES)
    assert got.dtype == torch.bfloat16
    assert sampling.locations.dtype == sampling.weights.dtype == torch.float32
    assert torch.equal(sampling.locations, expected.locations)


def test_references_that_are_neither_points_nor_boxes_are_refused():
    query, _, source = inputs()
    with pytest.raises(ValueError, match=r"reference_points must end in 2 .* got \(1, 4, 2, 3\)"):
        attention()(query, torch.rand(1, 4, L, 3).double(), source, SHAPES)


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="divisible by num_heads, got 8 and 3"):
        MultiScaleDeformableAttention(8, 3, 1)
