"""The cost of a detector as a function: equal to the trace, and a budget is kept."""

from __future__ import annotations

import functools
import itertools

import pytest
from detectron2.config import instantiate

from builders import small_detector
from sparse_detr.analysis import (
    HONEST,
    RELEASED_AS_BUILT,
    DetectorCost,
    FlopConvention,
    count_flops,
)
from sparse_detr.analysis.conventions import CONVENTIONS_BY_NAME
from sparse_detr.config.loading import load_config
from sparse_detr.inference import optimize_for_inference
from sparse_detr.layers import backend
from sparse_detr.meta_arch import TransformerDetector

SIZES = [(333, 215), (256, 448)]


@functools.cache
def detector() -> TransformerDetector:
    """A small detector with a ResNet, whose maps are halves of each other."""
    model: TransformerDetector = instantiate(
        load_config("quickstart", ["model.num_classes=4"]).model
    )
    return model.eval()


@functools.cache
def cost(convention: str) -> DetectorCost:
    return DetectorCost(detector(), CONVENTIONS_BY_NAME[convention])


@pytest.mark.parametrize("convention", [HONEST, RELEASED_AS_BUILT], ids=lambda c: str(c.name))
@pytest.mark.parametrize("size", SIZES)
def test_the_cost_equals_the_traced_count_part_by_part(
    convention: FlopConvention, size: tuple[int, int]
) -> None:
    for ratio in (0.04, 0.8):  # on both sides of where the attention changes its order
        traced = count_flops(detector(), size, ratio, convention)
        parts = cost(convention.name).by_part(size, traced.kept[0])
        assert {part: count for part, count in parts.items() if count} == traced.by_part
        assert cost(convention.name).flops(size, traced.kept[0]) == traced.total
        assert cost(convention.name).tokens(size) == traced.num_tokens


def test_layers_with_a_selection_of_their_own_cost_as_traced() -> None:
    traced = count_flops(detector(), SIZES[0], "layers:0.5,0.3,0.1")
    assert len(set(traced.kept)) == 3
    assert cost("honest").flops(SIZES[0], traced.kept) == traced.total
    assert cost("honest").by_part(SIZES[0], traced.kept) == traced.by_part


def test_a_dense_detector_with_maps_that_are_no_halves_rounded_up_costs_as_traced() -> None:
    dense = small_detector("deformable_detr")
    assert DetectorCost(dense).flops(SIZES[0]) == count_flops(dense, SIZES[0]).total


def test_maps_that_are_no_halves_rounded_up_are_counted_at_any_size_and_with_few_tokens() -> None:
    model = small_detector(query_selection__num_queries=130)  # more than the tokens of 64x64
    formula = DetectorCost(model)
    for size in ((64, 64), (96, 128), (480, 640)):
        traced = count_flops(model, size, 0.1)
        assert formula.tokens(size) == traced.num_tokens
        assert formula.by_part(size, traced.kept[0]) == traced.by_part
    assert formula.tokens((64, 64)) < 130 == model.query_selection.num_queries


def test_an_encoder_that_compares_tokens_with_tokens_costs_as_traced() -> None:
    tree = load_config("models/small_sparse_single_scale_detr").model
    tree.num_classes = 4
    model = instantiate(tree).eval()
    formula = DetectorCost(model)
    for ratio in (0.2, "layers:0.5,0.3,0.1"):
        traced = count_flops(model, SIZES[0], ratio)
        kept = traced.kept if len(traced.kept) > 1 else traced.kept[0]
        assert formula.by_part(SIZES[0], kept) == traced.by_part


def test_the_cost_rises_with_every_token() -> None:
    kept = range(0, cost("honest").tokens(SIZES[0]) + 1, 7)
    counts = [cost("honest").flops(SIZES[0], k) for k in kept]
    assert all(less < more for less, more in itertools.pairwise(counts))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.77])
def test_a_budget_is_used_up_to_the_last_token(share: float) -> None:
    size = SIZES[1]
    least, most = (
        cost("honest").flops(size, 1),
        cost("honest").flops(size, cost("honest").tokens(size)),
    )
    budget = least + share * (most - least)
    kept = cost("honest").kept_within(size, budget)
    assert cost("honest").flops(size, kept) <= budget < cost("honest").flops(size, kept + 1)


def test_a_budget_beyond_everything_keeps_all_and_one_below_everything_none() -> None:
    tokens = cost("honest").tokens(SIZES[0])
    assert cost("honest").kept_within(SIZES[0], 1e15) == tokens
    assert cost("honest").kept_within(SIZES[0], 1e15, max_kept=5) == 5
    assert cost("honest").kept_within(SIZES[0], 1.0) == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and"):
        cost("honest").flops(SIZES[0], 10**6)
    with pytest.raises(ValueError, match="3 numbers"):
        cost("honest").flops(SIZES[0], (1, 2))
    with pytest.raises(ValueError, match="optimised"):
        DetectorCost(optimize_for_inference(detector()))


def test_a_narrow_detector_whose_cost_falls_where_the_order_changes_keeps_the_most_that_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend, "is_native", lambda device: True)
    overrides = ["model.num_classes=4", "model.hidden_dim=64"]
    model = instantiate(load_config("quickstart", overrides).model).eval()
    formula, size = DetectorCost(model), (128, 160)
    costs = [formula.flops(size, kept) for kept in range(formula.tokens(size) + 1)]
    falls = [kept for kept in range(1, len(costs)) if costs[kept] < costs[kept - 1]]
    assert falls and set(falls) <= set(formula.rises_from(size))
    (fall,) = falls
    for budget in (costs[fall], costs[fall] - 1, costs[fall - 1], costs[fall - 1] - 1, costs[3]):
        most = max(kept for kept, count in enumerate(costs) if count <= budget)
        assert formula.kept_within(size, budget) == most
        inside = max(kept for kept in range(fall) if costs[kept] <= budget)
        assert formula.kept_within(size, budget, max_kept=fall - 1) == inside
