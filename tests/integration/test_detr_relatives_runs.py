"""SMCA and PnP-DETR as they are trained: precision, evaluation, resuming, images by heart."""

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
# The reconstruction has its joint layer in the middle.
CONFIGS = {
    "shapes_smca": (),
    "shapes_smca_multi_scale": (),
    "shapes_smca_multi_scale_reconstruction": ("model.encoder.joint_layers=[1]",),
    "shapes_pnp_detr": (),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Override that keeps the drawn images of this module in one folder."""
    return f"data.root={tmp_path_factory.mktemp('shapes')}"


def _run(name: str, output: Path, shapes: str, *overrides: str, resume: bool = False) -> int:
    arguments = ["--config-file", f"experiments/{name}", *SMALL, *CONFIGS[name], shapes]
    arguments += [f"train.output_dir={output}", *overrides]
    return run([*arguments, *(["--resume"] if resume else [])])


@pytest.mark.parametrize("override", ["train.amp.enabled=true", "model.released_behaviour=true"])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_way_of_training_runs_and_evaluates(
    name: str, override: str, tmp_path: Path, shapes: str
) -> None:
    assert _run(name, tmp_path, shapes, "train.max_iter=1", override) == 0
    assert "AP" in json.loads((tmp_path / "results.json").read_text())["results"]["bbox"]


# PnP-DETR draws a ratio in every step, which a resumed run has to go on with.
@pytest.mark.parametrize("name", ["shapes_smca_multi_scale", "shapes_pnp_detr"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    name: str, tmp_path: Path, shapes: str
) -> None:
    assert _run(name, tmp_path / "whole", shapes, "train.max_iter=4") == 0
    assert _run(name, tmp_path / "parts", shapes, "train.max_iter=2") == 0
    assert _run(name, tmp_path / "parts", shapes, "train.max_iter=4", resume=True) == 0
    states = [
        torch.load(tmp_path / part / "model_final.pth", weights_only=True)["model"]
        for part in ("whole", "parts")
    ]
    assert states[0].keys() == states[1].keys()
    assert [n for n, value in states[0].items() if not torch.equal(value, states[1][n])] == []


@pytest.mark.parametrize(
    ("config", "epochs"),
    [
        # Measured with seed 42: AP 98, 100, 100, 100.
        ("smca/smca_overfit", 150),
        ("smca/smca_multi_scale_overfit", 150),
        ("smca/smca_multi_scale_reconstruction_overfit", 150),
        ("pnp_detr/pnp_detr_overfit", 400),
    ],
)
def test_a_tiny_model_learns_two_real_images_by_heart(
    config: str, epochs: int, data_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    environment = {**os.environ, "DETECTRON2_DATASETS": str(data_folder("coco").parent)}
    arguments = [
        "train.overfit_images=2",
        "dataloader.train.total_batch_size=2",
        "dataloader.augmentation.short_edge_lengths=[160]",
        "dataloader.augmentation.test_short_edge_length=160",
        f"schedule.epochs={epochs}",
        f"train.output_dir={tmp_path}",
    ]
    # A process of its own: Detectron2 reads DETECTRON2_DATASETS when it is imported.
    done = subprocess.run(
        [sys.executable, str(ROOT / "train_net.py"), "--config-file", config, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert results["bbox"]["AP"] >= LEAST_AP
