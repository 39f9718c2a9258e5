"""Fixtures of the backbone tests: the three backbones, built from their configs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf
from torch import nn

_CONFIGS = Path(__file__).parents[2] / "configs" / "models" / "backbones"

BuildBackbone = Callable[..., nn.Module]


@pytest.fixture
def build_backbone() -> BuildBackbone:
    """Gives a builder: config name (and overridden arguments) to backbone."""

    def build(name: str, **overrides: object) -> nn.Module:
        backbone_config = LazyConfig.load(str(_CONFIGS / f"{name}.py")).backbone
        for key, value in overrides.items():
            backbone_config[key] = value
        # A backbone's config may refer to the model that it is a part of.
        model = {"released_behaviour": False, "backbone": backbone_config}
        tree = OmegaConf.create({"model": model}, flags={"allow_objects": True})
        backbone: nn.Module = instantiate(tree.model.backbone)
        return backbone

    return build
