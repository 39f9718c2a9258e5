"""Cascaded numbers of kept tokens."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_tokens import tokens_of
from sparse_detr.query_selection import proposal_grid
from sparse_detr.token_selection import Cascade, RankedTokens, TopRhoSelection, as_keep_ratio
from sparse_detr.token_selection.cascade import RELEASED_FACTORS, share_of

SHAPES = [(8, 10), (4, 5)]
VALID = [[(8, 10), (4, 5)], [(5, 6), (3, 3)]]
COUNTS = (100, 39)


def select(ratio, factors, valid=VALID, **switches):
    tokens = tokens_of(SHAPES, valid)
    logits = torch.randn(len(valid), 100).double()
    rule = TopRhoSelection(**switches)
    return rule(logits, tokens, proposal_grid(tokens), Cascade(ratio, factors))


def test_each_image_counts_from_its_own_tokens():
    layers = select(0.5, (1.0, 0.8, 0.2)).layers
    first = [int(0.5 * count) + 1 for count in COUNTS]
    assert first == [51, 20]
    assert [layer.kept_counts for layer in layers] == [(51, 20), (40, 16), (10, 4)]


def test_later_layers_keep_the_best_of_the_earlier_ones():
    layers = select(0.5, (1.0, 0.8, 0.2)).layers
    for image in range(2):
        rows = [layer.kept_indices[image, : layer.kept_counts[image]] for layer in layers]
        for one, other in pairwise(rows):
            assert torch.equal(other, one[: len(other)])


def test_equal_factors_share_one_selection_so_that_nothing_is_gathered_again():
    layers = select(0.5, (1.0, 0.6, 0.6)).layers
    assert layers[1] is layers[2] and layers[0] is not layers[1]


def test_as_released_the_largest_image_says_how_many_rows_there_are():
    layers = select(0.5, (1.0, 0.8, 0.8, 0.2), counts_from_largest=True).layers
    assert [layer.kept_indices.shape[1] for layer in layers] == [51, 40, 40, 10]
    # A small image is not cascaded before the rows are fewer than its first selection.
    assert [layer.kept_counts for layer in layers] == [(51, 20), (40, 20), (40, 20), (10, 10)]
    assert layers[1] is not layers[2]


def test_an_image_of_few_tokens_keeps_at_least_one():
    layers = select(0.01, (1.0, 0.2), valid=[VALID[0], [(1, 2), (1, 1)]]).layers
    assert [layer.kept_counts for layer in layers] == [(2, 1), (1, 1)]


def test_no_image_keeps_more_tokens_than_it_has():
    layers = select(1.0, (1.0, 1.0)).layers
    assert layers[0].kept_counts == COUNTS


@given(st.integers(1, 40_000), st.sampled_from(RELEASED_FACTORS))
@settings(max_examples=300, deadline=None)
def test_shares_are_those_of_the_number_as_it_is_written(count, factor):
    tenths = round(factor * 10)
    assert share_of(count, factor) == max(1, count * tenths // 10)


def test_text_without_factors_means_the_released_ones():
    assert as_keep_ratio("cascade:0.5") == Cascade(0.5, RELEASED_FACTORS)
    assert as_keep_ratio("cascade:0.3x1,0.5") == Cascade(0.3, (1.0, 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cascade:", "nothing after the colon"),
        ("cascade:0.5x", "expected a number"),
        ("cascade:0.5x1,2", "factor 1 of keep_ratio cascade must be a number"),
        ("cascade:2x1", "ratio of keep_ratio cascade must be a number"),
        ("layers:cascade:0.5x1/0.3", "which is about the whole detector"),
    ],
)
def test_wrong_texts_are_told_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=message):
        as_keep_ratio(text)


def test_one_factor_is_wanted_for_each_layer():
    with pytest.raises(ValueError, match="has 2 factors, but the encoder has 3 layers"):
        Cascade(0.5, (1.0, 0.5)).check_fits(4, 3)


def test_differing_layers_are_no_single_selection():
    tokens = tokens_of(SHAPES, VALID)
    scores = torch.randn(2, 100).double()
    ranked = RankedTokens(scores, scores, tokens)
    with pytest.raises(ValueError, match="keeps other tokens in other layers"):
        Cascade(0.5, (1.0, 0.5)).keep(ranked)
    assert Cascade(0.5, (0.5, 0.5)).keep(ranked).kept_counts == (25, 10)
