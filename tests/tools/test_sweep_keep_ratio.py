"""The sweep over keeping ratios: its files, its going on, and its messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from PIL import Image

import compare_selections
import sweep_keep_ratio
from small_run import SMALL
from sparse_detr.config.loading import load_config, save_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a training run leaves it: config and two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    overrides = [*SMALL, "data.val_images=4", "train.device=cpu"]
    overrides += [f"train.output_dir={folder}", f"data.root={folder / 'shapes'}"]
    config = load_config("quickstart", overrides)
    # As runs of earlier versions left it.
    del config.dataloader["sparsity_evaluator"]
    save_config(config, folder / "config.yaml")
    config.model.num_classes = 6
    for iteration in (1, 2):
        torch.manual_seed(iteration)
        file = folder / f"model_000000{iteration}.pth"
        torch.save({"model": instantiate(config.model).state_dict()}, file)
    return folder


def sweep(run: Path, *arguments: str) -> int:
    config = str(run / "config.yaml")
    return sweep_keep_ratio.main(["--config-file", config, *arguments])


def compare(run: Path, *arguments: str) -> int:
    return compare_selections.main([*arguments, "--config-file", str(run / "config.yaml")])


def checkpoint(run: Path, iteration: int) -> str:
    return str(run / f"model_000000{iteration}.pth")


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The error message, which must be all there is on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_sweep_leaves_table_plot_and_measurements_and_goes_on(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--num-images", "3", "--latency-images", "0")
    assert sweep(run, *few, "--keep-ratios", "0.3") == 0
    out = capsys.readouterr().out
    assert "Running per image evaluation" not in out, "pycocotools is kept quiet"
    assert sweep(run, *few, "--keep-ratios", "0.3", "layers:0.5,0.2") == 0
    out = capsys.readouterr().out
    assert out.count("(measured before)") == 2
    assert "[2/3] layers:0.5,0.2: AP" in out and "1 (all tokens)" in out
    folder = run / "sweep"
    report = json.loads((folder / "sweep.json").read_text())
    assert set(report["points"]) == {"0.3", "1", "layers:0.5,0.2"}
    assert report["points"]["1"]["sparsity"]["corr"] == 1
    gflops = {name: point["gflops"]["mean"] for name, point in report["points"].items()}
    assert gflops["0.3"] < gflops["1"]
    assert "| layers:0.5,0.2 |" in (folder / "sweep.md").read_text()
    with Image.open(folder / "sweep.png") as picture:
        assert picture.width > 600
    assert "- data set: shapes_val" in (folder / "sweep.md").read_text()
    assert json.loads((run / "sweep" / "sweep.json").read_text())["settings"]["num_images"] == 3
    # The same folder for other images would mix two sweeps.
    assert sweep(run, "--num-images", "2", "--keep-ratios", "0.3") == 2
    assert "num_images 3 -> 2" in capsys.readouterr().err


def test_times_of_an_optimised_detector_are_in_the_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--num-images", "2", "--latency-images", "1", "--optimize", "exact")
    assert sweep(run, *arguments, "--keep-ratios", "0.3", "--output", str(tmp_path)) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("0.3 "))
    assert " to " in row
    times = json.loads((tmp_path / "sweep.json").read_text())["latency"]["milliseconds"]
    assert set(times) == {"0.3", "1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "absent.pth"], "absent.pth does not exist"),
        (["--keep-ratios", "0"], "--keep-ratios: keep_ratio must be a number in (0, 1], got '0'"),
        (["--device", "gpu"], "device is 'gpu', expected auto, cpu, cuda or cuda:N"),
        (["--device", "gpu", "train.device=cpu"], "device is 'gpu'"),
        (["train.device=gpu"], "device is 'gpu'"),
        (["--keep-ratios", "layers:0.1"], "has 1 layers, but the encoder has 2"),
        (["data.val_image=2"], "nearest key is 'data.val_images'"),
    ],
)
def test_wrong_input_is_one_message(
    run: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sweep(run, *arguments, "--output", str(tmp_path / "none")) == 2
    assert message in error_of(capsys)
    assert not (tmp_path / "none" / "sweep.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--num-images", "0"],
        ["--latency-images", "-1"],
        ["--keep-ratios", "a=b"],
        ["--threads", "0"],
    ],
)
def test_wrong_usage_exits_with_two(run: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        sweep(run, *arguments)
    assert stop.value.code == 2


def test_two_checkpoints_are_compared_and_their_files_can_be_used_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ("--output", str(tmp_path))
    assert compare(run, checkpoint(run, 1), checkpoint(run, 2), *output, "--num-images", "3") == 0
    out = capsys.readouterr().out
    assert "3 images" in out and "level 3" in out and "IoU by chance" in out
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert 0 < record["overall"]["iou"] < 1 and record["num_images"] == 3
    stored = [str(tmp_path / side / "kept_tokens.npz") for side in "AB"]
    again = ("--output", str(tmp_path / "again"))
    assert compare_selections.main([*stored, *again, "--markdown", "--show-images", "1"]) == 0
    assert "| all tokens |" in capsys.readouterr().out
    second = json.loads((tmp_path / "again" / "comparison.json").read_text())
    assert second["overall"] == record["overall"] and len(second["most_different"]) == 1


def test_two_keeping_ratios_of_one_checkpoint_are_nested(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = checkpoint(run, 1)
    ratios = ("--keep-ratio", "0.1", "--keep-ratio-b", "levels:1,1,1,1")
    assert compare(run, weights, weights, *ratios, "--output", str(tmp_path)) == 0
    overall = json.loads((tmp_path / "comparison.json").read_text())["overall"]
    assert overall["first_in_second"] == 1 and overall["second_in_first"] < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.pth", "absent.pth"], "absent.pth does not exist"),
        (["{a}", "absent.npz"], "absent.npz does not exist"),
        (["{a}", "{config}.npz"], "config.yaml.npz does not exist"),
        (["{a}", "{a}", "--keep-ratio", "2"], "--keep-ratio: keep_ratio must be a number"),
    ],
)
def test_what_cannot_be_compared_is_one_message(
    run: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"a": checkpoint(run, 1), "config": str(run / "config.yaml")}
    given = [argument.format(**names) for argument in arguments]
    assert compare(run, *given, "--output", str(tmp_path), "--num-images", "1") == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_without_its_config_is_wrong_usage(run: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        compare_selections.main([checkpoint(run, 1), checkpoint(run, 2)])
    assert stop.value.code == 2
