"""A budget of GFLOPs is held and used up, and what cannot follow one says so."""

import functools
import logging

import pytest
import torch

from builders import PoolingBackbone, batch, small_detector
from sparse_detr.analysis import count_flops
from sparse_detr.engine.errors import UserError
from sparse_detr.inference import optimize_for_inference
from sparse_detr.token_selection import as_keep_ratio, kept_count
from sparse_detr.token_selection.budgets import most_within
from sparse_detr.token_selection.keep_ratio import FixedCounts

SIZES = [(96, 128), (64, 80)]


@functools.cache
def detector():
    """One for all: finding what it costs takes seconds."""
    return small_detector()


def counted(size, kept):
    return count_flops(detector(), size, FixedCounts((kept,))).total


def kept_counts(model, keep_ratio, sizes=SIZES):
    with torch.no_grad():
        tokens = model.extract_tokens(model.preprocess(batch(list(sizes))))
        return model.detect(tokens, keep_ratio).selection.layers[0].kept_counts, tokens


@pytest.mark.parametrize("gflops", [0.0045, 0.0125])
def test_a_budget_holds_for_each_image_and_leaves_no_room_for_another_token(gflops):
    counts, tokens = kept_counts(detector(), f"gflops:{gflops}")
    for size, kept, valid in zip(SIZES, counts, tokens.valid_counts, strict=True):
        assert counted(size, kept) <= gflops * 1e9
        assert kept == valid or counted(size, kept + 1) > gflops * 1e9


def test_a_budget_keeps_to_its_bounds_and_warns_once_where_the_lowest_does_not_fit(caplog):
    ratio = as_keep_ratio("gflops:0.0011,0.1-0.2")
    kept_counts(detector(), "gflops:1")  # what is said on first use
    with caplog.at_level(logging.WARNING):
        counts, tokens = kept_counts(detector(), ratio)
        kept_counts(detector(), ratio)
    assert counts == tuple(kept_count(valid, 0.1) for valid in tokens.valid_counts)
    (record,) = caplog.records
    assert "'gflops:0.0011,0.1-0.2'" in record.message and "lowest bound" in record.message
    counts, tokens = kept_counts(detector(), "gflops:9,0.1-0.2")
    assert counts == tuple(kept_count(valid, 0.2) for valid in tokens.valid_counts)


def test_a_budget_of_all_tokens_keeps_all_tokens():
    counts, tokens = kept_counts(detector(), "gflops:1000")
    assert counts == tokens.valid_counts


def test_count_flops_takes_a_budget_and_finds_that_it_holds():
    total = count_flops(detector(), SIZES[0], "gflops:0.006").total
    assert 0.0059e9 < total <= 0.006e9


def test_an_optimised_detector_keeps_what_the_detector_does_that_it_was_made_from():
    optimised = optimize_for_inference(detector())
    assert kept_counts(optimised, "gflops:0.006")[0] == kept_counts(detector(), "gflops:0.006")[0]


def test_a_detector_whose_cost_follows_from_no_formula_is_refused_with_what_to_give_instead():
    model = small_detector()
    model.backbone = PoolingBackbone(channels=8, strides=(8, 12, 32))
    with pytest.raises(UserError, match=r"'gflops:1' cannot be followed.*such as 0\.3"):
        kept_counts(model, "gflops:1")


def test_tokens_that_come_from_no_image_are_refused_with_the_way_to_get_some():
    model = small_detector()
    _, tokens = kept_counts(model, 0.3)
    bare = type(tokens)(tokens.features, tokens.positions, tokens.geometry)
    with pytest.raises(ValueError, match=r"needs tokens\.image_sizes, got None"):
        model.detect(bare, "gflops:1")


def test_the_greatest_number_within_a_limit_is_found_at_both_ends_and_between():
    assert [most_within(float, limit, 2, 9) for limit in (1, 2, 5.5, 9, 20)] == [2, 2, 5, 9, 9]


def test_a_cost_that_falls_at_known_numbers_is_searched_on_both_sides():
    costs = [0, 1, 2, 6, 3, 4, 5, 9, 2, 8]
    for limit in range(10):
        best = max(number for number, cost in enumerate(costs) if cost <= limit)
        assert most_within(costs.__getitem__, limit, 0, 9, (4, 8)) == best
        inside = [number for number in range(2, 8) if costs[number] <= limit]
        assert most_within(costs.__getitem__, limit, 2, 7, (4, 8)) == max(inside, default=2)
