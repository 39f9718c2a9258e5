"""A folder as a training run leaves it, for the programs that use a trained detector."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.config import instantiate

from sparse_detr.config.loading import load_config, save_config

SMALL = [
    "model.hidden_dim=32",
    "model.feature_projection.num_groups=8",
    "model.encoder.num_layers=2",
    "model.encoder.feedforward_dim=32",
    "model.decoder.num_layers=1",
    "model.query_selection.num_queries=12",
    "data.image_size=64",
    "data.train_images=2",
    "data.val_images=3",
]


def finished_run(folder: Path) -> Path:
    """Gives ``folder`` with the config of a small run on shapes, and a checkpoint."""
    overrides = [*SMALL, f"train.output_dir={folder}", f"data.root={folder / 'shapes'}"]
    config = load_config("quickstart", overrides)
    save_config(config, folder / "config.yaml")
    config.model.num_classes = 6
    torch.manual_seed(0)
    model = instantiate(config.model)
    torch.save({"model": model.state_dict()}, folder / "model_0000001.pth")
    return folder
