"""The release's table comes out to the digit, each row at the size that it was counted at."""

from __future__ import annotations

import pytest

from builders import small_detector
from sparse_detr.analysis import RELEASED, count_flops, released_models
from sparse_detr.analysis.released_models import (
    BACKBONES,
    DENSE_SIZE,
    RELEASED_MODELS,
    SPARSE_SIZE,
    ReleasedModel,
    build_released_model,
    parameter_figures,
)
from sparse_detr.analysis.size_set_cost import SizeSetCounter
from sparse_detr.config.loading import load_config
from sparse_detr.meta_arch import TransformerDetector
from sparse_detr.token_selection import Uniform

DENSE = [row for row in RELEASED_MODELS if row.keep_ratio is None]


def name(row: ReleasedModel) -> str:
    return f"{row.backbone} {row.title}"


def test_there_are_fourteen_rows() -> None:
    assert len({name(row) for row in RELEASED_MODELS}) == 14


@pytest.mark.parametrize("row", RELEASED_MODELS, ids=name)
def test_every_row_names_a_config_with_its_backbone_and_keeping_ratio(row: ReleasedModel) -> None:
    model = load_config(row.config).model
    assert model.keep_ratio == row.keep_ratio
    assert ("swin" in str(model.backbone).lower()) == (row.backbone == "swint")


@pytest.mark.parametrize("row", RELEASED_MODELS, ids=name)
def test_parameters_are_as_printed(row: ReleasedModel) -> None:
    assert f"{parameter_figures(row)['as_released'] / 1e6:.1f}" == f"{row.megaparameters:.1f}"


def test_parameters_are_as_counted_on_the_released_code() -> None:
    # Millions: with the auxiliary heads, and without them.
    counted = {"r50": [(39.847, 39.847), (40.827, 40.827)] + 5 * [(41.715, 40.935)],
               "swint": [(40.309, 40.309), (41.289, 41.289)] + 5 * [(42.176, 41.396)]}  # fmt: skip
    for backbone, expected in counted.items():
        rows = [row for row in RELEASED_MODELS if row.backbone == backbone]
        figures = [parameter_figures(row) for row in rows]
        got = [(round(f["trainable"] / 1e6, 3), round(f["as_released"] / 1e6, 3)) for f in figures]
        assert got == expected


@pytest.mark.parametrize("row", DENSE, ids=name)
def test_dense_rows_are_as_printed_at_850x1040(row: ReleasedModel) -> None:
    assert row.counted_at == DENSE_SIZE
    total = count_flops(build_released_model(row.config), DENSE_SIZE, None, RELEASED).total
    assert f"{total / 1e9:.1f}" == f"{row.gigaflops:.1f}"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_sparse_rows_are_as_printed_at_800x1066(backbone: str) -> None:
    rows = [r for r in RELEASED_MODELS if r.backbone == backbone and r.keep_ratio is not None]
    ratios = [Uniform(row.keep_ratio) for row in rows if row.keep_ratio is not None]
    counter = SizeSetCounter(build_released_model(rows[0].config), RELEASED)
    costs = counter([SPARSE_SIZE, DENSE_SIZE], list(ratios))
    for row, cost in zip(rows, costs, strict=True):
        assert row.counted_at == SPARSE_SIZE
        assert f"{cost.total(SPARSE_SIZE) / 1e9:.1f}" == f"{row.gigaflops:.1f}"
        # The table mixes two sizes: at the dense rows' size a sparse row would be printed higher.
        assert cost.total(DENSE_SIZE) / 1e9 > row.gigaflops + 3


def test_the_figures_of_a_row_are_those_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(config: str, device: str = "cpu") -> TransformerDetector:
        return small_detector("sparse_detr" if config.startswith("sparse") else "efficient_detr")

    rows = (RELEASED_MODELS[1], RELEASED_MODELS[2], RELEASED_MODELS[4])
    monkeypatch.setattr(released_models, "RELEASED_MODELS", rows)
    monkeypatch.setattr(released_models, "build_released_model", build)
    images = [(64, 96), (64, 96), (96, 64)]
    figures = released_models.count_released_models(images)
    assert (figures["images"], figures["distinct_sizes"]) == (3, 2)
    assert figures["mean_size"] == [74.7, 85.3]
    for row, model in zip(rows, figures["models"], strict=True):
        assert model["config"] == row.config
        for convention in released_models.CONVENTIONS:
            got = model[convention.name]
            one, two = (
                count_flops(build(row.config), size, row.keep_ratio, convention).total
                for size in images[1:]
            )
            assert got["mean"] == pytest.approx((2 * one + two) / 3)
            assert got["800x1066"] == sum(got["by_part"].values())
