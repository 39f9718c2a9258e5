"""The quickstart, shrunken: from drawn images to table, pictures and a resumed run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import run_demo
from shapes_runs import SMALL, assert_resuming_changes_nothing, short_run


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, shapes: str
) -> None:
    assert_resuming_changes_nothing("quickstart", tmp_path, shapes)


def test_losses_corr_and_kept_tokens_are_logged_every_iteration(
    tmp_path: Path, shapes: str
) -> None:
    assert (
        short_run("quickstart", tmp_path, shapes, "train.max_iter=2", "model.keep_ratio=0.3") == 0
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    logged = lines[0]
    stages = ["", "_0", "_enc", "_enc_0"]
    for term in ("loss_class", "loss_bbox", "loss_giou"):
        assert all(term + stage in logged for stage in stages)
    # 64 x 64 pixels: 8*8 + 4*4 + 2*2 + 1 tokens, of which int(85 * 0.3) + 1 are kept.
    assert logged["kept_tokens"] == 26
    assert 0 <= logged["corr"] <= 1
    assert logged["total_loss"] == pytest.approx(
        sum(value for name, value in logged.items() if name.startswith("loss_")), rel=1e-4
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.amp.enabled=true",),
        ("train.accumulation=2",),
        ("train.ema.enabled=true", "train.ema.warmup=1"),
        ("model.encoder.checkpoint_activations=true", "model.decoder.checkpoint_activations=true"),
        ("model.released_behaviour=true",),
        ("schedule.kind=cosine",),
    ],
    ids=lambda overrides: overrides[0].split("=")[0],
)
def test_every_way_of_training_runs_and_evaluates(
    tmp_path: Path, shapes: str, overrides: tuple[str, ...]
) -> None:
    assert short_run("quickstart", tmp_path, shapes, "train.max_iter=1", *overrides) == 0
    assert "AP" in json.loads((tmp_path / "results.json").read_text())["results"]["bbox"]


def test_the_demo_ends_with_table_pictures_and_curves(
    tmp_path: Path, shapes: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_demo, "NUM_PICTURES", 2)
    output = f"train.output_dir={tmp_path}"
    assert run_demo.main([*SMALL, shapes, output, "train.max_iter=2"]) == 0
    text = capsys.readouterr().out
    assert "4 held-out images" in text
    assert "average precision" in text
    assert f"Pictures: {tmp_path / 'pictures'}" in text
    assert (tmp_path / "curves.png").stat().st_size > 1000
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert len(pictures) == 4
    assert sum(name.endswith("_kept_tokens.png") for name in pictures) == 2


def test_the_demo_fails_below_its_gate_and_still_shows_the_table(
    tmp_path: Path, shapes: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_demo, "NUM_PICTURES", 1)
    gate = "train.expected_results=[[bbox, AP, 99.0]]"
    output = f"train.output_dir={tmp_path}"
    assert run_demo.main([*SMALL, shapes, output, "train.max_iter=1", gate]) == 1
    captured = capsys.readouterr()
    assert "gate 99" in captured.out
    assert "below the gate" in captured.err
