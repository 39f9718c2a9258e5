"""Short training runs on drawn shapes, through the program as it is started by hand."""

from __future__ import annotations

from pathlib import Path

import torch

from sparse_detr.engine.program import run

SMALL = (
    "data.train_images=16",
    "data.val_images=4",
    "data.image_size=64",
    "model.hidden_dim=64",
    "model.encoder.num_layers=2",
    "model.decoder.num_layers=2",
    "model.query_selection.num_queries=20",
    "train.log_period=1",
    "train.expected_results=[]",
    "train.eval_period_epochs=0",
    "train.checkpointer.period=2",
)


def short_run(config: str, output: Path, shapes: str, *overrides: str, resume: bool = False) -> int:
    """Gives the exit status of a run.

    Args:
        config: Name of a run config on drawn shapes.
        output: Its folder.
        shapes: Override that says where the drawn images are, see the fixture ``shapes``.
        *overrides: Changes to the config.
        resume: Goes on from the last checkpoint.
    """
    arguments = ["--config-file", config, *SMALL, shapes, f"train.output_dir={output}"]
    return run([*arguments, *overrides, *(["--resume"] if resume else [])])


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    """Gives the weights that a run ended with."""
    checkpoint = torch.load(output / "model_final.pth", weights_only=True)
    return dict(checkpoint["model"])


def assert_resuming_changes_nothing(config: str, folder: Path, shapes: str, *changes: str) -> None:
    """Asserts that a run in two parts ends with the weights of an uninterrupted one, to the bit."""
    for part, iterations, resume in (("whole", 4, False), ("parts", 2, False), ("parts", 4, True)):
        limit = f"train.max_iter={iterations}"
        assert short_run(config, folder / part, shapes, *changes, limit, resume=resume) == 0
    whole, parts = final_weights(folder / "whole"), final_weights(folder / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name, value in whole.items() if not torch.equal(value, parts[name])] == []
