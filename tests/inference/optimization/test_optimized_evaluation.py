"""``train_net.py --eval-only --optimize`` evaluates the same detections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from optimization_models import perturb
from sparse_detr.config.loading import load_config
from sparse_detr.engine.arguments import parse_arguments
from sparse_detr.engine.program import run

SMALL_RUN = (
    "data.image_size=64",
    "data.train_images=4",
    "data.val_images=3",
    "dataloader.augmentation.max_size=128",
    "dataloader.test.num_workers=0",
    "model.num_classes=6",
    "train.device=cpu",
    "train.expected_results=[]",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the quickstart's detector, its norms and biases perturbed."""
    torch.manual_seed(0)
    model = instantiate(load_config("quickstart", ["model.num_classes=6"]).model)
    perturb(model, torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


def evaluate(folder: Path, weights: Path, output: str, *arguments: str) -> list[dict]:
    """Gives the detections that ``train_net.py --eval-only`` stored."""
    paths = (
        f"data.root={folder / 'shapes'}",
        f"train.output_dir={folder / output}",
        f"train.init_checkpoint={weights}",
    )
    command = ["--config-file", "quickstart", "--eval-only", *arguments, *SMALL_RUN, *paths]
    assert run(command) == 0
    stored: list[dict] = json.loads(
        (folder / output / "inference" / "coco_instances_results.json").read_text()
    )
    return stored


def test_the_detections_are_those_of_the_detector_itself(tmp_path: Path, weights: Path) -> None:
    expected = evaluate(tmp_path, weights, "plain")
    found = evaluate(tmp_path, weights, "optimized", "--optimize", "exact")
    assert "Model OptimizedDetector: " in (tmp_path / "optimized" / "log.txt").read_text()
    assert "Model TransformerDetector: " in (tmp_path / "plain" / "log.txt").read_text()
    assert len(found) == len(expected) == 3 * 100
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["image_id"] == theirs["image_id"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-2)


def test_a_model_that_cannot_be_optimised_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Path(__file__).parents[2] / "engine"
    assert run(["--config-file", str(engine / "toy_config.py"), *toy_run(tmp_path)]) == 0
    checkpoint = f"train.init_checkpoint={tmp_path / 'run' / 'model_final.pth'}"
    again = [*toy_run(tmp_path), "--eval-only", "--optimize", "exact", checkpoint]
    assert run(["--config-file", str(engine / "toy_config.py"), *again]) == 2
    error = capsys.readouterr().err
    assert "error: --optimize: model must be a TransformerDetector, got ToyDetector" in error


def toy_run(folder: Path) -> list[str]:
    """Overrides of a one-iteration run of the toy detector."""
    paths = [f"data.root={folder / 'shapes'}", f"train.output_dir={folder / 'run'}"]
    return [*paths, "train.device=cpu", "train.max_iter=1", "train.expected_results=[]"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimize", "exact"], "--optimize needs --eval-only"),
        (["--eval-only", "--compile"], "--compile needs --optimize"),
        (["--eval-only", "--optimize", "fast"], "invalid choice: 'fast'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(["--config-file", "quickstart", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
