"""The decoder cross-attention map, its binarised target and Corr."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_tokens import sampling_at
from sparse_detr.decoder_attention_map import (
    binarised_target,
    correlation,
    correlations,
    decoder_attention_map,
)
from sparse_detr.structures import Sampling

SHAPES = ((4, 6), (2, 3))
NUM_TOKENS = 30


def random_sampling(low, high, layers=2, batch=2):
    found = []
    for _ in range(layers):
        weights = torch.rand(batch, 5, 2, 2, 3).double()
        weights = weights / weights.sum((-1, -2), keepdim=True)
        locations = low + (high - low) * torch.rand(batch, 5, 2, 2, 3, 2).double()
        found.append(Sampling(locations, weights))
    return found


def by_hand(sampling, shapes, shift=0.0):
    """The map, one weight and one corner at a time."""
    batch = len(sampling[0].weights)
    total = torch.zeros(batch, sum(h * w for h, w in shapes)).double()
    for layer in sampling:
        for b, q, h, level, p in torch.cartesian_prod(
            *(torch.arange(n) for n in layer.weights.shape)
        ).tolist():
            height, width = shapes[level]
            start = sum(a * b for a, b in shapes[:level])
            x = float(layer.locations[b, q, h, level, p, 0]) * width - shift
            y = float(layer.locations[b, q, h, level, p, 1]) * height - shift
            for row in (math.floor(y), math.floor(y) + 1):
                for column in (math.floor(x), math.floor(x) + 1):
                    if 0 <= row < height and 0 <= column < width:
                        share = (1 - abs(x - column)) * (1 - abs(y - row))
                        cell = start + row * width + column
                        total[b, cell] += float(layer.weights[b, q, h, level, p]) * share
    return total


@pytest.mark.parametrize(("flag", "shift"), [(True, 0.0), (False, 0.5)])
def test_the_map_is_the_bilinear_splat_of_the_weights(flag, shift):
    sampling = random_sampling(-0.3, 1.3)
    torch.testing.assert_close(
        decoder_attention_map(sampling, SHAPES, half_cell_shift=flag),
        by_hand(sampling, SHAPES, shift),
    )


def test_samples_inside_the_map_give_all_of_their_weight():
    """Two layers of five queries and two heads, each with weights that sum to one."""
    sampling = random_sampling(0.0, 0.5)  # at least half a cell before the far border
    total = decoder_attention_map(sampling, SHAPES).sum(1)
    torch.testing.assert_close(total, torch.full((2,), 20.0).double())


@pytest.mark.parametrize("far", [-3.0, 7.0, 1e30, float("nan"), float("inf")])
def test_samples_outside_the_map_give_nothing(far):
    locations = torch.full((1, 4, 2), far).double()
    attention = decoder_attention_map([sampling_at(locations, torch.ones(1, 4).double())], [(3, 3)])
    assert (attention == 0).all()


def test_without_the_shift_the_weight_falls_on_the_cell_that_was_read():
    centre = torch.tensor([[[2.5 / 6, 1.5 / 4]]]).double()
    sampling = [sampling_at(centre, torch.ones(1, 1).double())]
    read = decoder_attention_map(sampling, [(4, 6)], half_cell_shift=False).view(4, 6)
    assert read[1, 2] == pytest.approx(1.0)
    released = decoder_attention_map(sampling, [(4, 6)], half_cell_shift=True).view(4, 6)
    assert released[1:3, 2:4].flatten().tolist() == pytest.approx([0.25] * 4)


def test_the_map_of_an_image_does_not_depend_on_the_others():
    sampling = random_sampling(-0.3, 1.3)
    second = [Sampling(s.locations[1:], s.weights[1:]) for s in sampling]
    torch.testing.assert_close(
        decoder_attention_map(sampling, SHAPES)[1:], decoder_attention_map(second, SHAPES)
    )


def test_the_map_carries_no_gradient():
    sampling = random_sampling(0.0, 1.0)
    sampling[0].weights.requires_grad_()
    assert not decoder_attention_map(sampling, SHAPES).requires_grad


def test_the_target_marks_the_tokens_that_were_looked_at_most():
    attention = torch.tensor([[0.1, 0.9, 0.3, 0.7], [0.4, 0.2, 0.3, 0.1]])
    padding = torch.zeros(2, 4).bool()
    assert binarised_target(attention, padding, (2, 1)).tolist() == [[0, 1, 0, 1], [1, 0, 0, 0]]


def test_padding_is_marked_last_even_where_the_decoder_looked_at_it():
    attention = torch.tensor([[0.1, 0.9, 0.3, 0.7]])
    padding = torch.tensor([[False, True, False, False]])
    assert binarised_target(attention, padding, (3,)).tolist() == [[1, 0, 1, 1]]


def test_more_tokens_to_mark_than_there_are_marks_all():
    attention = torch.rand(1, 4)
    assert binarised_target(attention, torch.zeros(1, 4).bool(), (5,)).sum() == 4


@pytest.mark.parametrize("padding", [0, 1, 7, 600])
def test_tokens_that_were_not_looked_at_are_marked_alike_whatever_the_padding(padding):
    attention = torch.zeros(1, 50 + padding)
    attention[0, 40] = 1.0
    mask = torch.zeros(1, 50 + padding).bool()
    mask[:, 50:] = True
    marked = binarised_target(attention, mask, (20,))[0].nonzero()[:, 0].tolist()
    assert marked == [*range(19), 40]


@given(st.integers(1, NUM_TOKENS), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_corr_lies_between_zero_and_one(count, seed):
    torch.manual_seed(seed)
    attention = decoder_attention_map(random_sampling(-0.1, 1.1), SHAPES)
    selected = torch.zeros(2, NUM_TOKENS).bool()
    selected[:, torch.randperm(NUM_TOKENS)[:count]] = True
    values = correlation(attention, selected)
    assert ((values >= 0) & (values <= 1 + 1e-12)).all()


def test_corr_is_one_where_every_token_is_kept():
    attention = decoder_attention_map(random_sampling(0.0, 1.0), SHAPES)
    everything = torch.ones(2, NUM_TOKENS).bool()
    torch.testing.assert_close(correlation(attention, everything), torch.ones(2).double())
    torch.testing.assert_close(
        correlation(attention, everything, SHAPES), torch.ones(2, 2).double()
    )


def test_corr_is_the_share_of_the_map_on_the_kept_tokens():
    attention = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    selected = torch.tensor([[True, False, False, True]])
    assert correlation(attention, selected).item() == pytest.approx(0.5)
    by_level = correlation(attention, selected, [(1, 1), (1, 3)])[:, 0]
    assert by_level.tolist() == pytest.approx([1.0, 4 / 9])


def test_corr_of_a_level_without_attention_is_not_a_number():
    attention = torch.tensor([[1.0, 0.0]])
    by_level = correlation(attention, torch.ones(1, 2).bool(), [(1, 1), (1, 1)])
    assert by_level[0].item() == 1 and by_level[1].isnan()


def test_corr_over_all_and_by_level_come_from_one_reading():
    attention = decoder_attention_map(random_sampling(0.0, 1.0), SHAPES)
    selected = torch.rand(2, NUM_TOKENS) < 0.4
    overall, by_level = correlations(attention, selected, SHAPES)
    torch.testing.assert_close(overall, correlation(attention, selected))
    torch.testing.assert_close(by_level, correlation(attention, selected, SHAPES))
