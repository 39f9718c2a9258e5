"""The program writes what it is asked for, replaces nothing unasked, and names what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import predict
from small_run import finished_run
from sparse_detr import Predictor
from sparse_detr.inference.prediction_run import PredictionRun
from sparse_detr.inference.video import VideoFile, video_writer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("12.png", "7.jpg", "deep/12.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return tmp_path / "in"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = np.random.default_rng(1).integers(0, 256, (7, 48, 64, 3), dtype=np.uint8)
    with video_writer(tmp_path / "clip.mp4", 10) as writer:
        for frame in frames:
            writer.write(frame)
    return tmp_path / "clip.mp4"


def call(run: Path, *arguments: object) -> int:
    config = ["--config-file", str(run / "config.yaml"), "--device", "cpu"]
    return predict.main([*config, *map(str, arguments)])


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The error message, which must be all there is on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def written(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_of_images_gives_pictures_of_their_names(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert call(run, "--input", images, "--recursive", "--output", output) == 0
    assert written(output) == ["12.png", "7.jpg", "deep/12.png"]
    assert Image.open(output / "12.png").size == (60, 40)
    assert "[3/3] deep/12.png: " in capsys.readouterr().out


def test_json_holds_what_the_predictor_finds_with_ids_from_the_file_names(
    run: Path, images: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "results.json"
    options = ["--score-threshold", "0", "--batch-size", "2", "--no-pictures", "--json", file]
    assert call(run, "--input", images, *options) == 0
    records = json.loads(file.read_text())
    assert {record["image_id"] for record in records} == {12, 7}
    predictor = Predictor.from_config(run / "config.yaml", device="cpu", score_threshold=0.0)
    expected = predictor(images / "7.jpg").to_coco(7)
    found = [record for record in records if record["image_id"] == 7]
    assert len(found) == len(expected) > 0
    for record, wanted in zip(found, expected, strict=True):
        assert record["file_name"] == "7.jpg"
        assert record["category_id"] == wanted["category_id"]
        assert record["bbox"] == pytest.approx(wanted["bbox"], abs=1e-2)
    assert not (run / "predictions").exists()


def test_json_takes_the_ids_of_an_annotation_file(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [{"id": 5, "file_name": "train/7.jpg"}, {"id": 6, "file_name": "12.png"}]
    annotations = tmp_path / "val.json"
    annotations.write_text(json.dumps({"images": listed, "annotations": [], "categories": []}))
    options = ["--no-pictures", "--annotations", annotations, "--score-threshold", "0"]
    file = tmp_path / "r.json"
    assert call(run, "--input", images, *options, "--json", file) == 0
    assert {record["image_id"] for record in json.loads(file.read_text())} == {5, 6}
    annotations.write_text(json.dumps({"images": listed[:1], "annotations": [], "categories": []}))
    assert call(run, "--input", images, *options, "--json", tmp_path / "s.json") == 2
    assert "12.png is not among its images" in error_of(capsys)


@pytest.mark.parametrize("every", [1, 3])
def test_a_video_keeps_its_frames_size_and_speed(
    every: int, run: Path, clip: Path, tmp_path: Path
) -> None:
    output, file = tmp_path / "out", tmp_path / "r.json"
    arguments = ["--every", every, "--score-threshold", "0", "--batch-size", "3", "--json", file]
    assert call(run, "--input", clip, "--output", output, *arguments) == 0
    video = VideoFile(output / "clip.mp4")
    assert (video.frames_per_second, video.num_frames) == (10, 7)
    assert [frame.shape for frame in video] == [(48, 64, 3)] * 7
    records = json.loads(file.read_text())
    assert sorted({record["frame"] for record in records}) == list(range(0, 7, every))
    assert {record["image_id"] for record in records} == set(range(1, len(range(0, 7, every)) + 1))


def test_frames_of_videos_and_images_have_ids_of_their_own(
    run: Path, images: Path, clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "r.json"
    options = ["--score-threshold", "0", "--no-pictures", "--json", file, "--every", "4"]
    assert call(run, "--input", images, clip, *options) == 0
    records = json.loads(file.read_text())
    found = {(r["file_name"], r.get("frame")): r["image_id"] for r in records}
    assert found == {
        ("12.png", None): 12, ("7.jpg", None): 7, ("clip.mp4", 0): 13, ("clip.mp4", 4): 14
    }  # fmt: skip
    assert len({r["image_id"] for r in records}) == len(found)


def test_an_image_that_cannot_be_read_keeps_its_number(
    run: Path, images: Path, tmp_path: Path
) -> None:
    (images / "a.png").write_bytes(b"no image")
    paths, file = [images / name for name in ("12.png", "a.png", "7.jpg")], tmp_path / "r.json"
    options = ["--score-threshold", "0", "--no-pictures", "--json", file]
    assert call(run, "--input", *paths, *options) == 2
    found = {(r["file_name"], r["image_id"]) for r in json.loads(file.read_text())}
    assert found == {("12.png", 1), ("7.jpg", 3)}


def test_a_results_file_that_cannot_be_written_after_an_interruption_is_one_message(
    run: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(self: PredictionRun) -> None:
        (tmp_path / "folder").write_text("a file in its place")
        raise KeyboardInterrupt

    monkeypatch.setattr(PredictionRun, "run", interrupted)
    file = tmp_path / "folder" / "r.json"
    assert call(run, "--input", images, "--no-pictures", "--json", file) == 130
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("error: --json") and lines[1].startswith("interrupted after 0 files")
    assert len(lines) == 2


def test_class_names_and_type_can_be_given(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"kind {number}" for number in range(6)]
    file = tmp_path / "names.txt"
    file.write_text("\n".join(names) + "\n", encoding="utf-8")
    arguments = ["--input", images / "7.jpg", "--score-threshold", "0", "--dtype", "float64"]
    for given in (names, [file]):
        assert call(run, *arguments, "--class-names", *given, "data.val_images=3") == 0
        assert "kind " in capsys.readouterr().out
    assert call(run, *arguments, "--class-names", "one", "two") == 2
    assert "got 2 names, the model has 6 classes" in error_of(capsys)


def test_the_device_of_the_option_wins_over_that_of_the_config(
    run: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config-file", str(run / "config.yaml"), "--input", str(images / "7.jpg")]
    assert predict.main([*arguments, "--overwrite", "train.device=gpu"]) == 2
    assert "device is 'gpu'" in error_of(capsys)
    assert predict.main([*arguments, "--device", "cpu", "--overwrite", "train.device=gpu"]) == 0


def test_what_cannot_be_read_is_left_out_and_named(
    run: Path, images: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "bad.png").write_bytes(b"no image")
    (images / "bad.mp4").write_bytes(b"no video")
    (images / "cut.mp4").write_bytes(clip.read_bytes()[:-200])
    output = tmp_path / "out"
    assert call(run, "--input", images, "--output", output) == 2
    assert [name for name in written(output) if name != "cut.mp4"] == ["12.png", "7.jpg"]
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("left out: image ") and "bad.png cannot be read" in lines[0]
    assert lines[1].startswith("left out: video ") and "bad.mp4 cannot be opened" in lines[1]
    assert lines[-1].startswith("error: ") and lines[-1].endswith("could not be read in full")


def test_only_the_tools_own_folder_is_written_again_without_asking(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert call(run, "--input", images / "7.jpg") == 0
    assert written(run / "predictions") == ["7.jpg"]
    capsys.readouterr()
    output, file = tmp_path / "out", tmp_path / "r.json"
    arguments = ["--input", images, "--output", output]
    assert call(run, *arguments) == 0
    capsys.readouterr()
    before = (output / "7.jpg").stat().st_mtime_ns
    assert call(run, *arguments) == 2
    assert "12.png and 1 more would be replaced" in error_of(capsys)
    assert (output / "7.jpg").stat().st_mtime_ns == before
    assert call(run, *arguments, "--overwrite") == 0
    file.write_text("mine")
    capsys.readouterr()
    assert call(run, "--input", images, "--json", file) == 2
    assert "r.json would be replaced" in error_of(capsys)
    assert file.read_text() == "mine"


def test_an_input_is_never_replaced(
    run: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (images / "7.jpg").read_bytes()
    assert call(run, "--input", images, "--output", images, "--overwrite") == 2
    assert "would replace an input" in error_of(capsys)
    assert (images / "7.jpg").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "absent.pth"], "absent.pth does not exist"),
        (["--keep-ratio", "0"], "must be a number in (0, 1]"),
        (["--keep-ratio", "much"], "keep_ratio"),
        (["--dtype", "float16"], "dtype is 'float16', expected float32 or float64"),
        (["--optimize", "fast"], "precision must be one of exact"),
        (["--device", "gpu"], "device is 'gpu'"),
        (["model.hiden_dim=3"], "nearest key is 'model.hidden_dim'"),
        (["train.output_dir=/nowhere/run"], "no weights: give"),
        (["--output", "setup.py"], "setup.py"),
        (["--annotations", "absent.json", "--json", "r.json"], "absent.json does not exist"),
    ],
)
def test_wrong_input_ends_with_one_line_and_status_two(
    run: Path,
    images: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert call(run, "--input", images, *arguments) == 2
    assert message in error_of(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", "a.jpg", "--score-threshold", "1.5"],
        ["--input", "a.jpg", "--batch-size", "0"],
        ["--input", "a.jpg", "--every", "0"],
        ["--input", "a.jpg", "--scale", "0"],
        ["--input", "a.jpg", "--no-pictures"],
        ["--input", "a.jpg", "--annotations", "a.json"],
        [],
    ],
)
def test_wrong_usage_ends_with_status_two(run: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(run, *arguments)
    assert ended.value.code == 2


def test_initial_weights_have_to_be_asked_for(run: Path, images: Path, tmp_path: Path) -> None:
    arguments = ["--input", images / "7.jpg", f"train.output_dir={tmp_path / 'new'}"]
    assert call(run, *arguments) == 2
    assert call(run, *arguments, "--untrained") == 0
    assert written(tmp_path / "new") == ["predictions/7.jpg"]


def test_an_interrupted_run_leaves_complete_files(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "long.mp4"
    with video_writer(source, 10) as writer:
        for _ in range(2000):
            writer.write(np.zeros((48, 64, 3), dtype=np.uint8))
    output = tmp_path / "out"
    command = [sys.executable, predict.__file__, "--config-file", str(run / "config.yaml")]
    arguments = [
        "--input",
        str(source),
        "--output",
        str(output),
        "--json",
        str(tmp_path / "r.json"),
    ]
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--score-threshold", "0", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not any(output.glob(".*.tmp.mp4")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    time.sleep(1.0)
    errors = ""
    # Python drops an interrupt that comes while it runs a finaliser; then one presses again.
    for patience in (40, 40, 60):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, errors = process.communicate(timeout=patience)
            break
    assert process.returncode == 130, errors
    assert errors.strip().endswith("interrupted after 0 files; what was written is complete")
    assert written(output) == ["long.mp4"]
    frames = len(list(VideoFile(output / "long.mp4")))
    assert 0 < frames < 2000
    recorded = {record["frame"] for record in json.loads((tmp_path / "r.json").read_text())}
    assert abs(len(recorded) - frames) <= 1
