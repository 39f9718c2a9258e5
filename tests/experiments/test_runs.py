from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sparse_detr.experiments import (
    DATA_SETS,
    ExperimentPlan,
    ExperimentRun,
    ExperimentSetting,
    RunFailedError,
    run_experiment,
    runs,
)

RESULTS = {"iteration": 2, "results": {"bbox": {"AP": 12.5}}}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of the training processes, which leave what a real one would."""
    commands: list[list[str]] = []

    def train(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (output,) = (a for a in command if a.startswith("train.output_dir="))
        folder = Path(output.removeprefix("train.output_dir="))
        (folder / "results.json").write_text(json.dumps(RESULTS))
        options["stdout"].write("the end\n")
        return subprocess.CompletedProcess(command, 1 if "fail=1" in command else 0)

    monkeypatch.setattr(runs.subprocess, "run", train)
    return commands


def make(tmp_path: Path, seed: int = 1, overrides: tuple[str, ...] = ()) -> ExperimentRun:
    plan = ExperimentPlan(DATA_SETS["shapes"], tmp_path, overrides)
    return ExperimentRun(plan, ExperimentSetting("dam", 0.1, False), seed)


def test_a_run_gives_its_results_and_is_not_made_twice(
    tmp_path: Path, started: list[list[str]]
) -> None:
    record = run_experiment(make(tmp_path))
    assert record["results"] == RESULTS["results"]
    assert record["iterations"] == 2
    assert run_experiment(make(tmp_path)) == record
    assert len(started) == 1


def test_a_run_states_setting_seed_and_overrides(tmp_path: Path, started: list[list[str]]) -> None:
    run_experiment(make(tmp_path, seed=7, overrides=("train.max_iter=2",)))
    for argument in (
        "experiments/shapes_dam",
        "model.keep_ratio=0.1",
        "model.heads.encoder_auxiliary=false",
        "train.seed=7",
        "train.max_iter=2",
        "--resume",
    ):
        assert argument in started[0]


def test_a_folder_of_other_arguments_is_refused(tmp_path: Path, started: list[list[str]]) -> None:
    run_experiment(make(tmp_path))
    with pytest.raises(RunFailedError, match=r"train\.max_iter=2"):
        run_experiment(make(tmp_path, overrides=("train.max_iter=2",)))
    assert len(started) == 1


def test_a_failed_run_shows_the_end_of_its_output_and_is_tried_again(
    tmp_path: Path, started: list[list[str]]
) -> None:
    for _ in range(2):
        with pytest.raises(RunFailedError, match="the end"):
            run_experiment(make(tmp_path, overrides=("fail=1",)))
    assert len(started) == 2


def test_the_time_of_a_resumed_run_is_not_told(tmp_path: Path, started: list[list[str]]) -> None:
    run = make(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "last_checkpoint").write_text("model_0000001.pth")
    assert run_experiment(run)["seconds"] is None
