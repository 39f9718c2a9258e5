"""Fixtures of the backbone tests: the three backbones, built from their configs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import LazyConfig, instantiate
from torch import nn

_CONFIGS = Path(__file__).parents[2] / "configs" / "models" / "backbones"

BuildBackbone = Callable[..., nn.Module]


@pytest.fixture
def build_backbone() -> BuildBackbone:
    """Gives a builder: config name (and overridden arguments) to backbone."""

    def build(name: str, **overrides: object) -> nn.Module:
        config = LazyConfig.load(str(_CONFIGS / f"{name}.py")).backbone
        for key, value in overrides.items():
            config[key] = value
        backbone: nn.Module = instantiate(config)
        return backbone

    return build
