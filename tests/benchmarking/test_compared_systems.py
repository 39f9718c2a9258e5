"""Small systems are really timed against each other, and a training step's memory measured."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from sparse_detr.benchmarking.compared_systems import (
    COMPARED_WAYS,
    measure_latency,
    measure_training_memory,
)
from sparse_detr.benchmarking.model_ways import Setting, random_detector
from sparse_detr.benchmarking.timing import TimingPlan

ROUNDS = 3
PLAN = TimingPlan(ROUNDS, block_seconds=0.001, warmup_calls=1, patience_seconds=0.0)
SYSTEMS = {
    "DETR": Setting(64, 96, 1, None, system="models/small_detr"),
    "PnP-DETR": Setting(64, 96, 1, 0.4, system="models/small_pnp_detr"),
}


def ignore(line: str) -> None:
    """Says nothing."""


def test_a_setting_names_any_system_its_ratio_and_its_changes() -> None:
    changed = Setting(
        64, 96, 1, 0.4, system="models/small_pnp_detr",
        overrides=["model.token_selection.training_ratios=null"],
    )  # fmt: skip
    again = Setting(**json.loads(json.dumps(asdict(changed))))  # as a fresh process gets it
    for setting, drawn in ((SYSTEMS["PnP-DETR"], True), (again, False)):
        model = random_detector(setting)
        assert model.keep_ratio == 0.4
        assert (model.token_selection.training_ratios is not None) is drawn
    assert random_detector(SYSTEMS["DETR"]).keep_ratio is None


def test_all_systems_are_timed_in_each_round_as_built_and_optimised() -> None:
    told: list[str] = []
    record = measure_latency(SYSTEMS, "DETR", PLAN, told.append)
    assert json.loads(json.dumps(record)) == record
    assert record["images"] == {"height": 64, "width": 96, "batch": 1}
    assert [model["title"] for model in record["models"]] == list(SYSTEMS)
    for model in record["models"]:
        assert model["config"] == SYSTEMS[model["title"]].config
        assert tuple(model["ways"]) == COMPARED_WAYS
        for way in model["ways"].values():
            for spread in (way["ms"], way["faster_than_reference"]):
                assert spread["count"] == ROUNDS
                assert 0 < spread["smallest"] <= spread["median"] <= spread["largest"]
    for way in record["models"][0]["ways"].values():  # the reference against itself
        assert way["faster_than_reference"]["median"] == 1.0
    assert any("PnP-DETR" in line for line in told)


def test_a_reference_that_is_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="reference must be one of DETR, PnP-DETR, got 'none'"):
        measure_latency(SYSTEMS, "none", PLAN, ignore)


def test_a_training_step_holds_its_gradients_and_more() -> None:
    setting = Setting(160, 160, 1, None, system="models/small_deformable_detr")
    record = measure_training_memory({"Deformable DETR": setting}, 1, ignore)
    [model] = record["models"]
    assert model["config"] == setting.config
    assert record["machine"]["threads"] == 1
    assert record["images"] == {"height": 160, "width": 160, "batch": 1}
    trained = (p for p in random_detector(setting).parameters() if p.requires_grad)
    assert model["gradient_bytes"] == 4 * sum(parameter.numel() for parameter in trained)
    assert model["peak_bytes"] > model["gradient_bytes"]
