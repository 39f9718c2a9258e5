"""Runs the backbone golden cases: features of R50 and Swin-T on an image of odd size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from detectron2.config import instantiate

from ..backbone.resnet_keys import detectron2_to_released
from ..backbone.swin_keys import project_to_released
from ..config.loading import load_config
from .comparison import Comparison
from .seed_recipe import seeded_tensor

# Case -> config of the backbone and map of its names to the released ones.
_BACKBONES: dict[str, tuple[str, Callable[[str], str | None]]] = {
    "backbone_r50": ("models/backbones/resnet50", detectron2_to_released),
    "backbone_swint": ("models/backbones/swin_tiny", project_to_released),
}


def run_backbone_case(path: Path) -> Comparison:
    """Compares ``backbone_<name>.npz`` in float64 and evaluation mode.

    Args:
        path: The file; ``<stem>_keys.json`` beside it lists the released keys.

    Raises:
        ValueError: A backbone that this project does not have.
    """
    comparison = Comparison(path.stem)
    if path.stem not in _BACKBONES:
        raise ValueError(f"backbone case must be one of {sorted(_BACKBONES)}, got {path.stem}")
    config_name, to_released = _BACKBONES[path.stem]
    with np.load(path) as file:
        golden = dict(file)
    config = load_config(config_name)
    if "drop_path_in_frozen_stages" in config.backbone:
        config.backbone.drop_path_in_frozen_stages = True
    backbone = instantiate(config.backbone).double().eval()
    state, released = backbone.state_dict(), {}
    for name, value in state.items():
        released[name] = to_released(name)
        key = str(released[name])
        state[name] = torch.from_numpy(seeded_tensor(key, value.shape, int(golden["recipe_seed"])))
    backbone.load_state_dict(state)
    keys = json.loads(path.with_name(f"{path.stem}_keys.json").read_text())
    expected = {f"backbone.{key}" for key in keys if not key.endswith("relative_position_index")}
    comparison.same("keys", sorted(expected), sorted(map(str, released.values())))
    with torch.no_grad():
        features = backbone(torch.from_numpy(np.asarray(golden["input"], dtype=np.float64)))
    for index, feature in enumerate(features.values()):
        comparison.close(f"feat{index}", feature, golden[f"feat{index}"])
    return comparison
