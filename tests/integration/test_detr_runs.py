"""DETR as it is trained: precision, evaluation, resuming, and a few images by heart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sparse_detr.engine.program import run

ROOT = Path(__file__).resolve().parents[2]
LEAST_AP = 90.0
SMALL = (
    "data.train_images=16",
    "data.val_images=4",
    "data.image_size=64",
    "model.hidden_dim=64",
    "model.encoder.num_layers=2",
    "model.decoder.num_layers=2",
    "model.query_selection.num_queries=20",
    "train.expected_results=[]",
    "train.eval_period_epochs=0",
    "train.checkpointer.period=2",
)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Override that keeps the drawn images of this module in one folder."""
    return f"data.root={tmp_path_factory.mktemp('shapes')}"


def _run(output: Path, shapes: str, *overrides: str, resume: bool = False) -> int:
    arguments = ["--config-file", "experiments/shapes_detr", *SMALL, shapes]
    arguments += [f"train.output_dir={output}", *overrides]
    return run([*arguments, *(["--resume"] if resume else [])])


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("train.amp.enabled=true",),
        ("model.released_behaviour=true",),
        ("model.encoder.pre_norm=true",),
        ("model.encoder.checkpoint_activations=true", "model.decoder.checkpoint_activations=true"),
    ],
    ids=lambda overrides: "-".join(o.split("=")[0] for o in overrides) or "as shipped",
)
def test_every_way_of_training_runs_and_evaluates(
    tmp_path: Path, shapes: str, overrides: tuple[str, ...]
) -> None:
    assert _run(tmp_path, shapes, "train.max_iter=1", *overrides) == 0
    assert "AP" in json.loads((tmp_path / "results.json").read_text())["results"]["bbox"]


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, shapes: str
) -> None:
    assert _run(tmp_path / "whole", shapes, "train.max_iter=4") == 0
    assert _run(tmp_path / "parts", shapes, "train.max_iter=2") == 0
    assert _run(tmp_path / "parts", shapes, "train.max_iter=4", resume=True) == 0
    states = [
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"]
        for name in ("whole", "parts")
    ]
    assert states[0].keys() == states[1].keys()
    assert [n for n, value in states[0].items() if not torch.equal(value, states[1][n])] == []


def test_a_tiny_model_learns_two_real_images_by_heart(
    data_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    # Measured: AP 100 with seed 42 and 98 with seed 3.
    environment = {**os.environ, "DETECTRON2_DATASETS": str(data_folder("coco").parent)}
    arguments = [
        "--config-file",
        "detr/detr_overfit",
        "train.overfit_images=2",
        "dataloader.train.total_batch_size=2",
        "dataloader.augmentation.short_edge_lengths=[160]",
        "dataloader.augmentation.test_short_edge_length=160",
        "schedule.epochs=400",
        f"train.output_dir={tmp_path}",
    ]
    # A process of its own: Detectron2 reads DETECTRON2_DATASETS when it is imported.
    done = subprocess.run(
        [sys.executable, str(ROOT / "train_net.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert results["bbox"]["AP"] >= LEAST_AP
