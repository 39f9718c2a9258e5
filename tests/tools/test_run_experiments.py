from __future__ import annotations

import json
from pathlib import Path

import pytest

import run_experiments

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
    (record,) = (tmp_path / "runs").glob("shapes/dense_seed3/experiment.json")
    assert json.loads(record.read_text())["iterations"] == 2
    assert "| dense | 1 of 1 |" in page.read_text()
    assert "[1/1] dense, seed 3: AP" in capsys.readouterr().out
    record.with_name("results.json").unlink()  # a finished run is not touched again
    assert run_experiments.main([*arguments, "--report-only"]) == 0
    assert "| dense | 1 of 1 |" in capsys.readouterr().out


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
