"""Curves are read from whatever a run's log holds, and drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sparse_detr.visualization import draw_curves, read_metrics


def log(path: Path, *entries: dict[str, Any], tail: str = "") -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail)
    return path


def points(path: Path, name: str) -> list[tuple[int, float]]:
    iterations, values = read_metrics(path)[name]
    return list(zip(iterations.tolist(), values.tolist(), strict=True))


def test_values_are_given_by_iteration(tmp_path: Path) -> None:
    file = log(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 3.0, "corr": 0.5},
        {"iteration": 39, "total_loss": 2.0, "bbox/AP": 12.5},
    )
    assert points(file, "total_loss") == [(19, 3.0), (39, 2.0)]
    assert points(file, "bbox/AP") == [(39, 12.5)]
    assert "iteration" not in read_metrics(file)


def test_a_resumed_run_replaces_what_followed_the_iteration_it_went_on_from(
    tmp_path: Path,
) -> None:
    file = log(
        tmp_path / "metrics.json",
        {"iteration": 10, "total_loss": 4.0},
        {"iteration": 20, "total_loss": 9.0},
        {"iteration": 25, "total_loss": 9.0},
        {"iteration": 20, "total_loss": 3.0},
        {"iteration": 30, "total_loss": 2.0},
    )
    assert points(file, "total_loss") == [(10, 4.0), (20, 3.0), (30, 2.0)]


def test_two_lines_of_one_iteration_are_merged(tmp_path: Path) -> None:
    file = log(
        tmp_path / "m.json",
        {"iteration": 5, "total_loss": 1.0},
        {"iteration": 5, "bbox/AP": 7.0},
    )
    assert points(file, "total_loss") == [(5, 1.0)]
    assert points(file, "bbox/AP") == [(5, 7.0)]


def test_nan_and_null_are_kept_as_gaps(tmp_path: Path) -> None:
    file = log(
        tmp_path / "m.json",
        {"iteration": 1, "bbox/AP": math.nan},
        {"iteration": 2, "bbox/AP": None},
        {"iteration": 3, "bbox/AP": 1.0},
    )
    values = read_metrics(file)["bbox/AP"][1]
    assert math.isnan(values[0])
    assert math.isnan(values[1])
    assert values[2] == 1.0


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    file = log(
        tmp_path / "m.json", {"iteration": 1, "total_loss": 1.0}, tail='{"iteration": 2, "to'
    )
    assert points(file, "total_loss") == [(1, 1.0)]


@pytest.mark.parametrize(
    "text", ["", "no json\n", '{"total_loss": 1.0}\n', "[1]\n", '{"iteration": 3}\n']
)
def test_a_log_without_scalars_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.json holds no line"):
        read_metrics(file)


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_metrics(tmp_path / "metrics.json")


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"bbox/AP": 30.0, "bbox/AP50": 50.0, "corr": 0.8, "kept_tokens": 161.0},
        {"bbox/AP": math.nan, "corr": math.nan, "kept_tokens": math.nan, "loss_class": math.inf},
    ],
    ids=["loss only", "everything", "not finite"],
)
def test_the_curves_are_drawn_whatever_is_missing(tmp_path: Path, extra: dict[str, Any]) -> None:
    file = log(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 3.0, "loss_class": 1.0},
        {"iteration": 39, "total_loss": 2.0, **extra},
    )
    written = draw_curves(file, tmp_path / "Verlauf größer.png")
    with Image.open(written) as picture:
        assert picture.size == (1210, 770)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
