"""How many tokens are kept, which, and what the switches of the selection change."""

import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from small_tokens import tokens_of
from sparse_detr.query_selection import proposal_grid
from sparse_detr.token_selection import TopRhoSelection, check_keep_ratio, kept_count

INFINITY = float("inf")
SHAPES = [(4, 5), (2, 3)]
VALID = [[(4, 5), (2, 3)], [(2, 3), (1, 2)]]


def select(keep_ratio, valid=VALID, logits=None, shapes=SHAPES, **switches):
    tokens = tokens_of(shapes, valid)
    if logits is None:
        logits = torch.randn(len(valid), tokens.features.shape[1]).double()
    grid = proposal_grid(tokens)
    return tokens, TopRhoSelection(**switches)(logits, tokens, grid, keep_ratio)


@pytest.mark.parametrize("good", [0.1, 1, 1.0, np.float32(0.25), Decimal("0.5"), 1e-9])
def test_a_ratio_in_the_range_is_accepted_as_a_float(good):
    assert check_keep_ratio(good) == float(good)
    assert type(check_keep_ratio(good)) is float


@pytest.mark.parametrize(
    "bad", [0, 0.0, -0.1, 1.0000001, 2, math.nan, INFINITY, -INFINITY, None, [], {}, 1j]
)
def test_a_ratio_outside_the_range_is_refused_with_its_value(bad):
    with pytest.raises(ValueError, match=r"keep_ratio must be a number in \(0, 1\], got"):
        check_keep_ratio(bad)


@pytest.mark.parametrize("text", ["", "half", "0.3", b"0.3"])
def test_text_is_no_ratio_even_if_it_reads_like_one(text):
    with pytest.raises(ValueError, match="keep_ratio must be a number"):
        check_keep_ratio(text)


@given(st.integers(1, 30000), st.floats(1e-6, 1.0))
@settings(max_examples=300, deadline=None)
def test_the_count_is_the_share_rounded_down_plus_one(valid, ratio):
    assert abs(kept_count(valid, ratio) - (valid * ratio + 1)) <= 1 + valid * ratio * 1e-6
    assert kept_count(valid, ratio) >= 1


@given(st.integers(1, 30000), st.floats(1e-6, 1.0), st.floats(1e-6, 1.0))
@settings(max_examples=200, deadline=None)
def test_the_count_grows_with_the_ratio_and_with_the_tokens(valid, first, second):
    low, high = sorted((first, second))
    assert kept_count(valid, low) <= kept_count(valid, high)
    assert kept_count(valid, low) <= kept_count(valid + 1, low)


def test_the_product_is_taken_in_float32_as_released():
    assert kept_count(180, 0.35) == 64  # int(180 * 0.35) + 1 is 63


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 0.99, 1.0])
def test_each_image_keeps_the_share_of_its_own_tokens_and_never_padding(ratio):
    tokens, selection = select(ratio)
    kept = selection.layers[0]
    assert kept.kept_counts == tuple(min(kept_count(v, ratio), v) for v in (26, 8))
    for image, count in enumerate(kept.kept_counts):
        own = kept.kept_indices[image, :count]
        assert not tokens.padding_mask[image, own].any()
        assert len(own.unique()) == count


def test_ratio_one_keeps_every_real_token():
    tokens, selection = select(1.0)
    assert torch.equal(selection.layers[0].membership(26), ~tokens.padding_mask)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=4),
    st.floats(0.01, 1.0),
    st.integers(0, 10**6),
)
@settings(max_examples=50, deadline=None)
def test_a_padded_token_is_never_an_own_row(sizes, ratio, seed):
    valid = [[size, (min(2, size[0]), min(3, size[1]))] for size in sizes]
    torch.manual_seed(seed)
    tokens, selection = select(ratio, valid)
    kept = selection.layers[0]
    assert not (kept.membership(26) & tokens.padding_mask).any()
    assert kept.kept_indices.shape[1] == max(kept.kept_counts)


def test_the_tokens_with_the_highest_scores_are_kept_best_first():
    logits = torch.randn(2, 26).double()
    logits[1] += 100  # scores are compared within an image only
    tokens, selection = select(0.3, logits=logits)
    kept = selection.layers[0]
    for image, count in enumerate(kept.kept_counts):
        masked = logits[image].masked_fill(tokens.padding_mask[image], -INFINITY)
        assert torch.equal(kept.kept_indices[image, :count], masked.topk(count).indices)


def test_by_default_padding_scores_minus_infinity_and_gets_no_gradient():
    logits = torch.randn(2, 26).double().requires_grad_()
    tokens, selection = select(0.3, logits=logits)
    scores = selection.token_scores
    assert (scores[tokens.padding_mask] == -INFINITY).all()
    scores[~tokens.padding_mask].sum().backward()
    assert torch.equal(logits.grad, (~tokens.padding_mask).double())


def test_padding_competes_fills_in_the_lowest_logit_of_the_batch_with_its_gradient():
    logits = torch.randn(2, 26).double()
    logits[0, 4] = -50.0
    logits.requires_grad_()
    tokens, selection = select(0.3, logits=logits, padding_competes=True)
    scores = selection.token_scores
    assert (scores[tokens.padding_mask] == -50.0).all()
    scores.sum().backward()
    assert logits.grad[0, 4] == 1 + tokens.padding_mask.sum()


def test_padding_competes_lets_the_count_pass_the_images_own_tokens():
    _, selection = select(1.0, padding_competes=True)
    assert selection.layers[0].kept_counts == (26, 9)
    _, selection = select(1.0)
    assert selection.layers[0].kept_counts == (26, 8)


def edge_logits():
    """One row of 60 cells: the outermost are no proposals, here with the highest logits."""
    logits = torch.linspace(1, 0, 60).double()[None]
    logits[0, [0, 59]] = 9.0
    return {"logits": logits, "shapes": [(1, 60)], "valid": [[(1, 60)]]}


def test_edge_tokens_are_kept_last_by_default():
    _, selection = select(0.9, **edge_logits())
    assert not {0, 59} & set(selection.layers[0].kept_indices[0].tolist())
    _, everything = select(1.0, **edge_logits())
    assert everything.layers[0].kept_indices[0, -2:].tolist() == [0, 59]


def test_edge_tokens_compete_ranks_them_by_their_logit():
    _, selection = select(0.03, edge_tokens_compete=True, **edge_logits())
    assert selection.layers[0].kept_indices[0].tolist() == [0, 59]


@pytest.mark.parametrize("flag", [False, True])
def test_edge_tokens_compete_changes_the_order_only_not_the_scores(flag):
    given_logits = edge_logits()
    _, selection = select(0.5, edge_tokens_compete=flag, **given_logits)
    assert torch.equal(selection.token_scores, given_logits["logits"])
    assert selection.layers[0].kept_counts == (31,)


def test_the_choice_itself_has_no_gradient_and_ties_go_to_the_earlier_token():
    _, selection = select(0.2, valid=[[(4, 5), (2, 3)]], logits=torch.zeros(1, 26).double())
    assert selection.layers[0].kept_indices[0].tolist() == list(range(6))
