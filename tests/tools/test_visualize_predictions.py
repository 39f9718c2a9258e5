"""The program draws what it is asked for, and says in one line what the user has to correct."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import visualize_predictions
from small_run import finished_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"))


def call(run: Path, *arguments: str) -> int:
    return visualize_predictions.main(["--config-file", str(run / "config.yaml"), *arguments])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The error message, which must be all there is on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_evaluation_images_of_a_run_are_drawn_with_its_own_checkpoint(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(run, "--num-images", "2") == 0
    assert names(run / "pictures") == [
        "000001_kept_tokens.png",
        "000001_predictions.png",
        "000002_kept_tokens.png",
        "000002_predictions.png",
    ]
    out = capsys.readouterr().out
    assert "[2/2]" in out
    assert f"The pictures are in {run / 'pictures'}" in out


def test_files_and_folders_are_drawn_with_any_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "Füße 犬"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "größe 1.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.JPG")
    (folder / "notes.txt").write_text("no image")
    same_stem = tmp_path / "grey.png"
    Image.fromarray(pixels).save(same_stem)
    output = tmp_path / "Ausgabe größer"

    arguments = ["--input", str(folder), str(same_stem), "model.postprocess.max_detections=5"]
    assert call(run, *arguments, "--output", str(output), "--score-threshold", "0") == 0

    assert [name for name in names(output) if "predictions" in name] == [
        "grey_2_predictions.png",
        "grey_predictions.png",
        "größe 1_predictions.png",
    ]
    assert len(names(output)) == 6
    assert "[3/3]" in capsys.readouterr().out


def test_keep_ratio_of_the_command_line_is_used(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ratio in ("0.2", "1"):
        output = ["--output", str(tmp_path / ratio)]
        assert call(run, "--num-images", "1", "--keep-ratio", ratio, *output) == 0
        assert f"keeping ratio {ratio}" in capsys.readouterr().out
    few, all_tokens = (
        np.asarray(Image.open(tmp_path / ratio / "000001_kept_tokens.png")).mean()
        for ratio in ("0.2", "1")
    )
    assert few < all_tokens, "kept tokens are the bright ones"


def test_the_training_data_can_be_named(run: Path, tmp_path: Path) -> None:
    for name in ("shapes_train", "train"):
        assert call(run, "--dataset", name, "--output", str(tmp_path / name)) == 0
        assert len(names(tmp_path / name)) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "absent.pth"], "absent.pth does not exist"),
        (["--keep-ratio", "0"], "keep_ratio must be a number in (0, 1], got"),
        (["--keep-ratio", "half"], "keep_ratio"),
        (["--input", "absent.jpg"], "--input: absent.jpg does not exist"),
        (["--dataset", "shapes_vall"], "'shapes_vall' is not registered"),
        (["model.hiden_dim=3"], "nearest key is 'model.hidden_dim'"),
        (["train.output_dir=/nowhere/run"], "no weights: give --weights FILE"),
    ],
)
def test_wrong_input_ends_with_one_line_and_status_two(
    run: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(run, *arguments) == 2
    assert message in error_of(capsys)


def test_a_missing_config_ends_with_one_line_and_status_two(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert visualize_predictions.main(["--config-file", "absent"]) == 2
    assert "config file 'absent' does not exist" in error_of(capsys)


def test_a_file_that_is_no_image_ends_with_one_line_and_status_two(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    assert call(run, "--input", str(broken), "--output", str(tmp_path / "out")) == 2
    assert "broken.png cannot be read" in error_of(capsys)


def test_a_folder_without_images_ends_with_one_line_and_status_two(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(run, "--input", str(tmp_path)) == 2
    assert "holds no image" in error_of(capsys)


def test_an_output_that_cannot_be_written_ends_with_one_line_and_status_two(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert call(run, "--output", str(occupied)) == 2
    assert f"--output {occupied}" in error_of(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--score-threshold", "1.5"],
        ["--num-images", "0"],
        ["--input", "a.jpg", "--dataset", "shapes_val"],
    ],
)
def test_wrong_usage_ends_with_status_two(run: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(run, *arguments)
    assert ended.value.code == 2


def test_help_ends_with_status_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        visualize_predictions.main(["--help"])
    assert ended.value.code == 0
    assert "--keep-ratio" in capsys.readouterr().out
