from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import run_experiments
from sparse_detr import experiments
from sparse_detr.experiments import ExperimentRun

TINY = [
    "data.train_images=4",
    "data.val_images=2",
    "data.image_size=64",
    "train.max_iter=2",
    "schedule.warmup_iterations=0",
    "dataloader.train.total_batch_size=2",
]


def test_a_run_is_made_reported_and_written_into_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("### Drawn shapes\n")
    arguments = ["--data", "shapes", "--criteria", "dense", "--seeds", "3", "--page", str(page)]
    arguments += ["--output", str(tmp_path / "runs"), *TINY, f"data.root={tmp_path / 'shapes'}"]
    assert run_experiments.main(arguments) == 0, capsys.readouterr()
    records = sorted((tmp_path / "runs").glob("shapes/*/experiment.json"))
    assert [record.parent.name for record in records] == ["dense_aux_seed3", "dense_seed3"]
    assert json.loads(records[0].read_text())["iterations"] == 2
    assert "| dense | 1 of 1 |" in page.read_text()
    assert "[1/2] dense, seed 3: AP" in capsys.readouterr().out
    records[0].with_name("results.json").unlink()  # a finished run is not touched again
    assert run_experiments.main([*arguments, "--report-only"]) == 0
    assert "| dense | 1 of 1 |" in capsys.readouterr().out


def test_an_interruption_leaves_out_what_has_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def run(run: ExperimentRun) -> None:
        started.append(run.setting.name)
        time.sleep(0.2)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "run_experiment", run)
    monkeypatch.setattr(run_experiments, "prepare_data", lambda run: None)
    assert run_experiments.main(["--data", "shapes", "--output", str(tmp_path)]) == 130
    assert len(started) <= 2


def test_a_report_without_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", "shapes", "--report-only", "--output", str(tmp_path)]
    assert run_experiments.main(arguments) == 0
    assert "No run is finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "blood_cells"], "--root"),
        (["--data", "shapes", "--root", "x"], "takes no --root"),
        (["--data", "shapes", "--jobs", "0"], "--jobs"),
        (["--data", "shapes", "--seeds", "1", "1"], "twice"),
        (["--data", "shapes", "--page", "none.md"], "none.md"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        run_experiments.main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_photographs_that_are_not_there_end_with_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", "blood_cells", "--root", str(tmp_path), "--output", str(tmp_path / "r")]
    assert run_experiments.main([*arguments, "--criteria", "dense"]) == 2
    assert "does not exist" in capsys.readouterr().err
