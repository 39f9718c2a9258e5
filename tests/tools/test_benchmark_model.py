from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmark_model
from sparse_detr.benchmarking.model_ways import OURS, RELEASED, Setting
from sparse_detr.benchmarking.timing import TimingPlan


def record(setting: Setting, names: list[str], holds: bool) -> dict[str, Any]:
    spread = {"median": 2.0, "smallest": 1.0, "largest": 3.0, "count": 2}
    return {
        "setting": vars(setting),
        "threads": 1,
        "missing": ["RT-DETR was not measured: not installed"],
        "ways": {
            name: {
                "ms": spread,
                "images_per_second": 500.0,
                "faster_than": {other: spread for other in names if other != name},
                "rejected_blocks": 0,
                "disturbed_blocks": 0,
            }
            for name in names
        },
        "stages": {},
        "agreement": {
            OURS: {
                "logits": 0.1,
                "boxes": 0.1,
                "largest_logit": 1.0,
                "matched": 0.5,
                "holds": holds,
            }
        },
    }


@pytest.fixture
def fake_times(monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    seen: list[Setting] = []

    def measured(
        setting: Setting, names: list[str], plan: TimingPlan, with_stages: bool
    ) -> dict[str, Any]:
        seen.append(setting)
        return record(setting, names, holds=True)

    monkeypatch.setattr(benchmark_model, "measure_ways", measured)
    return seen


def test_every_ratio_and_batch_is_measured(fake_times: list[Setting], tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    arguments = ["--keep-ratios", "0.1", "dense", "--batch", "1", "4", "--size", "320x416"]
    assert (
        benchmark_model.main([*arguments, "--ways", "ours", "released", "--json", str(file)]) == 0
    )

    assert [(s.batch, s.keep_ratio, s.height, s.width) for s in fake_times] == [
        (1, 0.1, 320, 416),
        (1, None, 320, 416),
        (4, 0.1, 320, 416),
        (4, None, 320, 416),
    ]
    report = json.loads(file.read_text())
    assert len(report["runs"]) == 4
    assert report["notes"].count("RT-DETR was not measured: not installed") == 1


def test_predictions_that_disagree_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        benchmark_model, "measure_ways", lambda s, names, *_: record(s, names, holds=False)
    )

    assert benchmark_model.main(["--ways", "ours", "released"]) == 1
    assert "differ from the released way" in capsys.readouterr().err


def test_memory_is_asked_of_fresh_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, Any]] = []

    def in_fresh_process(function: str, arguments: dict[str, Any], *_: Any) -> dict[str, int]:
        asked.append(
            (function.rpartition(":")[2], arguments.get("name", arguments.get("released")))
        )
        return {"peak_bytes": 5_000_000, "gradient_bytes": 1_000_000}

    monkeypatch.setattr(benchmark_model, "call_in_fresh_process", in_fresh_process)
    arguments = ["--no-times", "--memory", "--training", "--ways", "ours", "released"]
    assert benchmark_model.main(arguments) == 0

    assert asked[:2] == [("inference_peak", OURS), ("inference_peak", RELEASED)]
    assert {released for name, released in asked if name == "training_step_peak"} == {False, True}
    assert "1.00x" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["480", "axb", "480x640x3", "10x10"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SystemExit):
        benchmark_model.parse_arguments(["--size", text])


def test_a_number_that_is_too_small_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_model.parse_arguments(["--rounds", "0"])
    assert "--rounds is 0, expected 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "1.5", "sparse"])
def test_a_keeping_ratio_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SystemExit):
        benchmark_model.parse_arguments(["--keep-ratios", text])


def test_threads_are_set(fake_times: list[Setting], monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    benchmark_model.main(["--threads", "3", "--ways", "ours"])

    assert threads == [3]
