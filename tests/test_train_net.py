"""``train_net.py`` as a program: exit codes, messages, several processes. Few cases, as each start takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
TOY = ROOT / "tests" / "engine" / "toy_config.py"


def train_net(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, str(ROOT / "train_net.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


def toy(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs the toy config with data and output below ``tmp_path``."""
    paths = (f"data.root={tmp_path / 'shapes'}", f"train.output_dir={tmp_path / 'run'}")
    return train_net("--config-file", TOY, *paths, *arguments)


def assert_refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    """One message, code 2, no traceback."""
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr and "Traceback" not in done.stdout


def test_help_exits_with_zero_and_shows_every_option() -> None:
    done = train_net("--help")
    assert done.returncode == 0
    for option in ("--config-file", "--eval-only", "--resume", "--num-gpus", "--num-machines", "--dist-url"):
        assert option in done.stdout


def test_wrong_usage_exits_with_two() -> None:
    assert_refused(train_net(), "--config-file")


def test_a_missing_config_and_an_unknown_key_are_one_message_each(tmp_path: Path) -> None:
    assert_refused(train_net("--config-file", "no_such_config"), "config file 'no_such_config' does not exist")
    done = toy(tmp_path, "train.max_itr=1")
    assert_refused(done, "nearest key is 'train.max_iter'")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_wrong_values_are_one_message_and_write_nothing(tmp_path: Path) -> None:
    assert_refused(toy(tmp_path, "model.keep_ratio=0"), "keep_ratio is 0")
    assert not (tmp_path / "run").exists()


def test_a_run_whose_loss_is_not_finite_fails_with_one_message(tmp_path: Path) -> None:
    done = toy(tmp_path, "model.fail_at=2")
    assert done.returncode == 1
    assert "Training stopped at iteration 1: loss terms not finite: loss_bbox=nan" in done.stderr
    assert "Traceback" not in done.stderr and (tmp_path / "run" / "nan_1.pt").is_file()


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    done = toy(tmp_path, "model.dtype=no_such_type")
    assert done.returncode == 1
    assert "AttributeError" in done.stderr and "Traceback" in done.stderr


def test_two_cpu_processes_train_resume_and_evaluate(tmp_path: Path) -> None:
    options = ("--num-gpus", 2, "--dist-url", "auto", "train.device=cpu", "train.checkpointer.period=2")
    done = toy(tmp_path, *options, "train.max_iter=3")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert (run / "log.txt").is_file() and (run / "log.txt.rank1").is_file()
    assert (run / "results.json").is_file()
    done = toy(tmp_path, *options, "--resume", "train.max_iter=4")
    assert done.returncode == 0, done.stderr
    assert "Resumed from" in done.stdout
    state = torch.load(run / "model_final.pth", weights_only=True)
    assert state["iteration"] == 4 and len(state["random_states"]) == 2


def test_input_errors_in_several_processes_are_said_once(tmp_path: Path) -> None:
    done = toy(tmp_path, "--num-gpus", 2, "--dist-url", "auto", "train.device=cpu", "model.keep_ratio=2")
    assert_refused(done, "keep_ratio is 2")
    assert done.stderr.count("error: model") == 1


@pytest.mark.parametrize("arguments", [["--num-gpus", "0"], ["--machine-rank", "1"]])
def test_process_counts_out_of_range_are_wrong_usage(arguments: list[str]) -> None:
    assert_refused(train_net("--config-file", TOY, *arguments), arguments[0])
