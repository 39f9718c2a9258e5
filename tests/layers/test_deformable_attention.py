"""The attention module around the operators."""

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
    _, sampling = module(query, points, source, SHAPES, with_sampling=True)
    offsets = module.sampling_offsets(query).view(1, 4, H, L, P, 2)
    cells = torch.tensor([(w, h) for h, w in SHAPES]).double()[:, None]
    torch.testing.assert_close(sampling.locations, points[:, :, None, :, None] + offsets / cells)


def test_offsets_from_boxes_are_in_half_sizes_shared_by_the_points():
    module = attention()
    query, boxes, source = inputs(4)
    _, sampling = module(query, boxes, source, SHAPES, with_sampling=True)
    offsets = module.sampling_offsets(query).view(1, 4, H, L, P, 2)
    boxes = boxes[:, :, None, :, None]
    expected = boxes[..., :2] + offsets / P * boxes[..., 2:] / 2
    torch.testing.assert_close(sampling.locations, expected)


def test_weights_sum_to_one_over_levels_and_points_of_each_head():
    query, points, source = inputs()
    _, sampling = attention()(query, points, source, SHAPES, with_sampling=True)
    torch.testing.assert_close(sampling.weights.sum((-1, -2)), torch.ones(1, 4, H).double())


def test_the_output_is_the_projected_operator_on_the_projected_values():
    module = attention()
    query, points, source = inputs()
    got, sampling = module(query, points, source, SHAPES, with_sampling=True)
    value = module.value_proj(source).view(1, N, H, C // H)
    expected = ms_deform_attn_torch(value, SHAPES, sampling.locations, sampling.weights)
    torch.testing.assert_close(got, module.output_proj(expected))


def test_values_on_padding_are_zero_after_the_projection_so_the_bias_counts_nothing():
    module = attention()
    query, points, source = inputs()
    nothing = torch.zeros(1, L, 2, dtype=torch.int64)
    for samples_first in (False, True):
        module.project_after_sampling = samples_first
        got, _ = module(query, points, source, SHAPES, nothing)
        torch.testing.assert_close(got, module.output_proj.bias.expand(1, 4, C))


def test_only_the_cells_of_the_image_are_read():
    module = attention()
    query, points, source = inputs()
    valid_sizes = torch.tensor([[[3, 4], [2, 2]]])
    got, _ = module(query, points, source, SHAPES, valid_sizes)
    mask = torch.zeros(1, N).bool()
    mask[0, :20].view(4, 5)[3:] = mask[0, :20].view(4, 5)[:, 4:] = True
    mask[0, 20:].view(2, 3)[:, 2:] = True
    value = module.value_proj(source).masked_fill(mask[..., None], 0.0).view(1, N, H, C // H)
    _, sampling = module(query, points, source, SHAPES, with_sampling=True)
    expected = ms_deform_attn_torch(value, SHAPES, sampling.locations, sampling.weights)
    torch.testing.assert_close(got, module.output_proj(expected))
    padding = source.masked_fill(mask[..., None], float("nan"))
    torch.testing.assert_close(module(query, points, padding, SHAPES, valid_sizes)[0], got)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_both_orders_of_sampling_and_projection_give_the_same_and_its_gradients(coordinates):
    module = attention()
    query, reference, source = inputs(coordinates)
    results = []
    for samples_first in (False, True, None):
        module.project_after_sampling = samples_first
        leaves = [tensor.detach().requires_grad_() for tensor in (query, reference, source)]
        got, _ = module(*leaves, SHAPES, torch.tensor([[[3, 4], [2, 2]]]))
        gradients = torch.autograd.grad(got.square().sum(), [*leaves, *module.parameters()])
        results.append([got, *gradients])
    for one, two, three in zip(*results, strict=True):
        torch.testing.assert_close(two, one)
        torch.testing.assert_close(three, one)


def test_the_sampling_is_given_only_where_it_is_asked_for():
    query, points, source = inputs()
    module = attention()
    got, sampling = module(query, points, source, SHAPES)
    again, asked_for = module(query, points, source, SHAPES, with_sampling=True)
    assert sampling is None
    assert not asked_for.locations.requires_grad
    assert torch.equal(got, again)


@pytest.mark.parametrize("samples_first", [False, True, None])
def test_compiles_as_one_graph(samples_first):
    module = attention()
    module.project_after_sampling = samples_first
    valid_sizes = torch.tensor([[[3, 4], [2, 2]]])
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    tensors = inputs(4)
    for function in (module, compiled):
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        got, sampling = function(*leaves, SHAPES, valid_sizes, with_sampling=True)
        gradients = torch.autograd.grad(got.square().sum(), [*leaves, *module.parameters()])
        results.append([got, sampling.locations, sampling.weights, *gradients])
    torch._dynamo.reset()
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(two, one)


def test_inference_mode_gives_the_same():
    module = attention()
    query, points, source = inputs()
    expected, _ = module(query, points, source, SHAPES)
    with torch.inference_mode():
        got, _ = module(query, points, source, SHAPES)
    assert torch.equal(got, expected)


@pytest.mark.parametrize(("batch", "queries"), [(0, 4), (1, 0)])
def test_no_image_or_no_query_gives_an_empty_output(batch, queries):
    query, points, source = inputs()
    query, points = query[:batch, :queries], points[:batch, :queries]
    for samples_first in (False, True):
        module = attention()
        module.project_after_sampling = samples_first
        got, _ = module(query, points, source[:batch], SHAPES)
        assert got.shape == (batch, queries, C)


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
    _, sampling = module(query, points, source, SHAPES, with_sampling=True)
    torch.testing.assert_close(sampling.weights, torch.full_like(sampling.weights, 1 / (L * P)))
    assert (module.sampling_offsets.weight == 0).all()
    assert (module.value_proj.bias == 0).all() and (module.output_proj.bias == 0).all()


def test_autocast_keeps_locations_and_weights_in_float32():
    module = MultiScaleDeformableAttention(C, H, L, P)
    query, points, source = (t.float() for t in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        got, sampling = module(query, points, source, SHAPES, with_sampling=True)
    _, expected = module(query, points, source, SHAPES, with_sampling=True)
    assert got.dtype == torch.bfloat16
    assert sampling.locations.dtype == sampling.weights.dtype == torch.float32
    assert torch.equal(sampling.locations, expected.locations)


def test_references_that_are_neither_points_nor_boxes_are_refused():
    query, _, source = inputs()
    with pytest.raises(ValueError, match=r"reference_points: got shape \(1, 4, 2, 3\), expected"):
        attention()(query, torch.rand(1, 4, L, 3).double(), source, SHAPES)


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(ValueError, match="divisible by num_heads, got 8 and 3"):
        MultiScaleDeformableAttention(8, 3, 1)
