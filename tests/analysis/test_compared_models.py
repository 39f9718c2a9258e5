"""Models of all systems have the released codes' parameters and count what those count."""

from __future__ import annotations

import dataclasses

import pytest

from builders import small_detector
from sparse_detr.analysis import HONEST, compared_models, count_flops
from sparse_detr.analysis.compared_models import (
    COMPARED_MODELS,
    ComparedModel,
    build_compared_model,
    compared_parameters,
    count_compared_models,
)
from sparse_detr.analysis.conventions import RELEASED, RELEASED_WITH_NORMS
from sparse_detr.config.loading import load_config

COUNTED = [row for row in COMPARED_MODELS if row.parameters is not None]
# One row of each kind of difference between what runs here and what the released codes compute.
ONE_OF_EACH = ("DETR", "PnP-DETR, ratio 0.333", "SMCA, single scale", "DINO, 4 scales",
               "Focus-DETR on DINO, 4 scales")  # fmt: skip


def name(row: ComparedModel) -> str:
    return f"{row.title} {row.epochs}"


def test_rows_differ_and_name_configs_of_their_epochs() -> None:
    assert len({name(row) for row in COMPARED_MODELS}) == len(COMPARED_MODELS)
    for row in COMPARED_MODELS:
        assert row.epochs in (None, load_config(row.config).schedule.epochs)


@pytest.mark.parametrize("row", COUNTED, ids=name)
def test_parameters_are_those_of_the_released_model_to_the_last_one(row: ComparedModel) -> None:
    assert row.parameters is not None
    assert compared_parameters(row) == list(row.parameters)


@pytest.mark.parametrize("title", ONE_OF_EACH)
def test_gflops_are_those_of_the_released_code(title: str) -> None:
    row = next(row for row in COMPARED_MODELS if row.title == title)
    size, released = row.released_counts[0]
    total = count_flops(build_compared_model(row), size, row.keep_ratio, row.convention).total
    digits = len(released.partition(".")[2])
    assert f"{total / 1e9:.{digits}f}" == released


def test_the_released_conventions_differ_in_frozen_norms_alone() -> None:
    model = build_compared_model(COMPARED_MODELS[0])
    without, with_norms, own = (
        count_flops(model, (64, 96), convention=c) for c in (RELEASED, RELEASED_WITH_NORMS, HONEST)
    )
    norms = own.by_operator["batch_norm"]
    assert with_norms.total - without.total == norms > 0
    assert own.by_part["backbone"] - without.by_part["backbone"] == norms


def test_the_figures_of_a_row_are_those_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(row: ComparedModel, device: str = "cpu") -> object:
        return small_detector("detr")

    monkeypatch.setattr(compared_models, "build_compared_model", build)
    monkeypatch.setattr(compared_models, "COMPARED_SIZE", (64, 96))
    row = dataclasses.replace(COMPARED_MODELS[0], released_counts=(((96, 64), "0"),))
    told: list[str] = []
    [figures] = count_compared_models([row], told.append)
    model = small_detector("detr")
    assert told == [row.title]
    assert figures["honest"] == count_flops(model, (64, 96)).total
    assert figures["released"] == {
        "64x96": count_flops(model, (64, 96), convention=RELEASED).total,
        "96x64": count_flops(model, (96, 64), convention=RELEASED).total,
    }
