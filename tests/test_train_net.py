"""``train_net.py`` as a program: exit codes, messages, several processes. Few cases, as each start
takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparse_detr.engine.program import run

ROOT = Path(__file__).resolve().parents[1]
TOY = ROOT / "tests" / "engine" / "toy_config.py"
TOY_ON_RESNET = TOY.with_name("toy_resnet_config.py")
if str(TOY.parent) not in sys.path:
    sys.path.insert(
        0, str(TOY.parent)
    )  # the config imports the toy detector, in started processes too


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


def run_toy(tmp_path: Path, *arguments: object, config: Path = TOY) -> int:
    """Gives the exit code of the toy config with data and output below ``tmp_path``, without a new
    interpreter."""
    paths = (
        f"data.root={tmp_path / 'shapes'}",
        f"train.output_dir={tmp_path / 'run'}",
        "train.device=cpu",
    )
    return run(["--config-file", str(config), *paths, *map(str, arguments)])


def test_help_exits_with_zero_and_shows_every_option() -> None:
    done = train_net("--help")
    assert done.returncode == 0
    for option in (
        "--config-file",
        "--eval-only",
        "--optimize",
        "--compile",
        "--resume",
        "--num-gpus",
        "--num-machines",
        "--dist-url",
    ):
        assert option in done.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["--config-file", "a", "--num-gpus", "0"], ["--machine-rank", "1"]]
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    done = train_net(*arguments)
    assert done.returncode == 2
    assert "error: " in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_key_is_one_line_that_names_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_toy(tmp_path, "train.max_itr=1") == 2
    error = capsys.readouterr().err
    assert "nearest key is 'train.max_iter'" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    paths = (f"data.root={tmp_path / 'shapes'}", f"train.output_dir={tmp_path / 'run'}")
    done = train_net("--config-file", TOY, *paths, "model.dtype=no_such_type")
    assert done.returncode == 1
    assert "AttributeError" in done.stderr and "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.keep_ratio=0"], "error: model.keep_ratio: keep_ratio must be a number in (0, 1]"),
        (["data.val_images=-1"], "error: dataloader"),
        (["train.init_checkpoint=absent.pth"], "absent.pth does not exist"),
        (["--eval-only"], "nothing to evaluate"),
    ],
)
def test_wrong_input_is_one_message_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_toy(tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class RunsCode:
    """What a pickle with code in it looks like: opening it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def write_unusable_file(kind: str, file: Path, ran: Path) -> None:
    """Writes a file that is no good as weights; running the code in it makes the file ``ran``."""
    content: dict[str, object] = {
        "foreign": {"some.weight": torch.ones(2)},
        "list": [torch.ones(2)],
        "code": {"conv1.weight": RunsCode(ran)},
        "cut short": {"conv1.weight": torch.ones(200)},
    }
    if kind == "text":
        file.write_text("hello")
    elif kind != "absent":
        torch.save(content[kind], file)
    if kind == "cut short":
        file.write_bytes(file.read_bytes()[:300])


@pytest.mark.parametrize("arguments", [[], ["--eval-only"]], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "cannot be read, it is damaged or incomplete"),
        ("cut short", "cannot be read, it is damaged or incomplete"),
        ("code", "is refused: it holds more than tensors and plain data"),
    ],
)
def test_an_unreadable_checkpoint_is_one_message_and_runs_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    message: str,
    arguments: list[str],
) -> None:
    file, ran = tmp_path / "weights.pth", tmp_path / "ran"
    write_unusable_file(kind, file, ran)
    assert run_toy(tmp_path, *arguments, f"train.init_checkpoint={file}") == 2
    error = capsys.readouterr().err
    assert f"checkpoint {file} {message}" in error
    assert error.count("error: ") == 1 and "Traceback" not in error
    assert not ran.exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "error: train.backbone_weights: "),
        ("text", "cannot be read, it is damaged or incomplete"),
        ("cut short", "cannot be read, it is damaged or incomplete"),
        ("foreign", "no key names a weight of this ResNet"),
        ("list", "holds list, expected a dict"),
        ("code", "is refused: it holds more than tensors and plain data"),
    ],
)
def test_a_wrong_backbone_file_is_one_message_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    file, ran = tmp_path / "weights.pth", tmp_path / "ran"
    write_unusable_file(kind, file, ran)
    assert run_toy(tmp_path, f"train.backbone_weights={file}", config=TOY_ON_RESNET) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("error: ") == 1 and "Traceback" not in error
    assert not ran.exists() and not (tmp_path / "run").exists()


def test_a_missing_config_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--config-file", "no_such_config"]) == 2
    assert "config file 'no_such_config' does not exist" in capsys.readouterr().err


def test_a_config_without_the_needed_sections_is_one_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--config-file", "common/train"]) == 2
    assert "the config has no model, dataloader, optimizer, schedule" in capsys.readouterr().err


def test_a_run_whose_loss_is_not_finite_fails_with_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_toy(tmp_path, "model.fail_at=2") == 1
    assert (
        "Training stopped at iteration 1: loss terms not finite: loss_bbox=nan"
        in capsys.readouterr().err
    )
    assert (tmp_path / "run" / "nan_1.pt").is_file()


def test_results_below_the_gate_fail_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_toy(tmp_path, "train.max_iter=1", "train.expected_results=[[bbox,AP,99]]") == 1
    assert "expected at least 99" in capsys.readouterr().err


def test_two_cpu_processes_train_resume_and_evaluate(tmp_path: Path) -> None:
    options = ("--num-gpus", 2, "--dist-url", "auto", "train.checkpointer.period=2")
    options += ("dataloader.train.on_bad_sample=skip",)  # counted over the processes
    assert run_toy(tmp_path, *options, "train.max_iter=3") == 0
    output = tmp_path / "run"
    assert {"log.txt", "log.txt.rank1", "results.json"} <= {path.name for path in output.iterdir()}
    assert run_toy(tmp_path, *options, "--resume", "train.max_iter=4") == 0
    assert "Resumed from" in (output / "log.txt").read_text()
    state = torch.load(output / "model_final.pth", weights_only=True)
    assert state["iteration"] == 4 and len(state["random_states"]) == 2


def test_input_errors_in_several_processes_are_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_toy(tmp_path, "--num-gpus", 2, "--dist-url", "auto", "model.keep_ratio=2") == 2
    error = capfd.readouterr().err
    assert error.count("keep_ratio must be a number") == 1 and "Traceback" not in error
