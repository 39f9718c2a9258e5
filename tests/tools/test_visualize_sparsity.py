"""The program shows the sparsity of what it is asked for, and says in one line what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import compare_selections
import sweep_keep_ratio
import visualize_predictions
import visualize_sparsity
from small_run import finished_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"))


def call(run: Path, *arguments: str) -> int:
    return visualize_sparsity.main(["--config-file", str(run / "config.yaml"), *arguments])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def page_data(folder: Path) -> dict[str, Any]:
    page = (folder / "sparsity.html").read_text(encoding="utf-8")
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)


def test_evaluation_images_of_a_run_are_shown_with_its_own_checkpoint(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(run, "--num-images", "2", "--score-threshold", "0") == 0
    output = run / "sparsity"
    assert names(output) == ["000001_sparsity.png", "000002_sparsity.png", "sparsity.html"]
    data = page_data(output)
    assert [image["name"] for image in data["images"]] == ["000001.png", "000002.png"]
    assert all(image["truth"] for image in data["images"])
    assert data["facts"]["Weights"] == str(run / "model_0000001.pth")
    assert data["images"][0]["detections"][0]["label"] in {
        "circle", "square", "rectangle", "triangle", "ring", "cross", "star"
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "[2/2]" in out
    assert "opens in a browser without a network" in out
    assert f"The pictures are in {output}" in out


def test_files_folders_and_any_name_are_shown(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Füße 犬"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "<b>größe & 1.png")
    Image.fromarray(pixels).save(tmp_path / "one.png")
    output = tmp_path / "out"
    arguments = ["--input", str(tmp_path / "one.png"), str(folder), "data.val_images=1"]
    assert call(run, *arguments, "--output", str(output)) == 0
    assert names(output) == ["<b>größe & 1_sparsity.png", "one_sparsity.png", "sparsity.html"]
    assert "<b>" not in (output / "sparsity.html").read_text(encoding="utf-8")
    data = page_data(output)
    assert [image["name"] for image in data["images"]] == ["one.png", "<b>größe & 1.png"]
    assert data["images"][0]["truth"] is None


def test_panels_of_chosen_queries_and_layers_are_written_on_request(
    run: Path, tmp_path: Path
) -> None:
    wanted = ["--query", "index:7", "--query", "at:10,20", "--keep-ratio", "layers:0.5,0.2"]
    output = ["--output", str(tmp_path), "--num-images", "1", "--write", "panels"]
    assert call(run, *wanted, *output) == 0
    assert names(tmp_path) == ["panels"]
    panels = names(tmp_path / "panels" / "000001")
    assert "query7_layer0.png" in panels
    assert {"kept_layer0.png", "kept_layer1.png"} <= {*panels}


def test_untrained_weights_and_the_training_data_can_be_asked_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path), "--write", "page"]
    assert call(run, "--untrained", "--dataset", "train", *output) == 0
    assert len(page_data(tmp_path)["images"]) == 2
    assert "weights: none, initial values" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "absent.pth"], "absent.pth does not exist"),
        (["--keep-ratio", "1.5"], "keep_ratio must be a number in (0, 1]"),
        (["--keep-ratio", "layers:0.5"], "has 1 layers, but the encoder has 2"),
        (["--input", "absent.jpg"], "--input: absent.jpg does not exist"),
        (["--dataset", "shapes_vall"], "'shapes_vall' is not registered"),
        (["--query", "best"], "--query: a query must be a rank"),
        (["--query", "index:99"], "query index:99 must be below 12"),
        (["--query", "at:500,1"], "lies outside the image of 64x64 pixels"),
        (["model.hiden_dim=3"], "nearest key is 'model.hidden_dim'"),
        (["train.output_dir=/nowhere/run"], "no weights"),
    ],
)
def test_wrong_input_ends_with_one_line_and_status_two(
    run: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(run, *arguments, "--output", str(tmp_path / "out")) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--score-threshold", "1.5"],
        ["--num-images", "0"],
        ["--write", "film"],
        ["--input", "a.jpg", "--dataset", "shapes_val"],
        ["--weights", "a.pth", "--untrained"],
    ],
)
def test_wrong_usage_ends_with_status_two(run: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(run, *arguments)
    assert ended.value.code == 2


def test_help_ends_with_status_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        visualize_sparsity.main(["--help"])
    assert ended.value.code == 0
    assert "--query" in capsys.readouterr().out


MODEL = "models/sparse_detr"


@pytest.mark.parametrize(
    "work",
    [
        lambda: visualize_sparsity.main(["--config-file", MODEL, "--untrained"]),
        lambda: visualize_predictions.main(["--config-file", MODEL, "--weights", "a.pth"]),
        lambda: sweep_keep_ratio.main(["--config-file", MODEL, "--weights", "a.pth"]),
        lambda: compare_selections.main(["--config-file", MODEL, __file__, __file__]),
    ],
)
def test_a_config_of_a_model_alone_is_answered_with_one_line(
    work: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert work() == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"error: the config {MODEL} has no key 'dataloader'")
    assert lines[0].endswith("use the config of a run")


def test_an_explicit_device_wins_over_the_config(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--num-images", "1", "--write", "page", "--output", str(tmp_path))
    assert call(run, *arguments, "train.device=gpu") == 2
    assert "device is 'gpu'" in capsys.readouterr().err
    assert call(run, *arguments, "train.device=gpu", "--device", "cpu") == 0
