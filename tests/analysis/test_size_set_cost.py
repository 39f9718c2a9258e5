"""Costs over sets of image sizes: the same traced and by formula, and means over the images."""

from __future__ import annotations

import pytest
from detectron2.config import instantiate

from sparse_detr.analysis import HONEST, size_set_cost
from sparse_detr.analysis.size_set_cost import SizeSetCounter
from sparse_detr.config.loading import load_config
from sparse_detr.meta_arch import TransformerDetector
from sparse_detr.token_selection import as_keep_ratio

IMAGES = [(200, 300), (310, 180), (200, 300), (200, 300)]
RATIOS = ["0.2", "layers:0.5,0.2,0.2", "layers:0.3,0.3,0.3", "levels:0.1,0.2,0.5,1"]


def small() -> TransformerDetector:
    model: TransformerDetector = instantiate(
        load_config("quickstart", ["model.num_classes=4"]).model
    )
    return model.eval()


def test_formula_and_trace_give_the_same_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = [as_keep_ratio(text) for text in RATIOS]
    counter = SizeSetCounter(small(), HONEST)
    traced = counter(IMAGES, ratios)
    assert counter._formula is None
    monkeypatch.setattr(size_set_cost, "_FEW", 0)
    by_formula = counter(IMAGES, ratios)
    assert counter._formula is not None
    for one, other in zip(traced, by_formula, strict=True):
        assert one.kept == other.kept and one.tokens == other.tokens
        assert one.mean_by_part == {p: n for p, n in other.mean_by_part.items() if n}
    kept = [cost.kept[IMAGES[0]] for cost in traced]
    assert [len(layers) for layers in kept] == [1, 3, 1, 1]


def test_the_mean_is_over_images_not_over_sizes() -> None:
    [cost] = SizeSetCounter(small(), HONEST)(IMAGES, [as_keep_ratio(0.2)])
    first, second = cost.total((200, 300)), cost.total((310, 180))
    assert first != second
    assert cost.images == {(200, 300): 3, (310, 180): 1}
    assert cost.mean == pytest.approx((3 * first + second) / 4)
