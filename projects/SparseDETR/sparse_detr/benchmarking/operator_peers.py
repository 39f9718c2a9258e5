"""Deformable attention of other installed packages, behind one signature."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..structures import Size

Attention = Callable[[Tensor, Sequence[Size], Tensor, Tensor], Tensor]


def installed_peers(device_type: str) -> tuple[dict[str, Attention], list[str]]:
    """Gives the peers that can be imported.

    Args:
        device_type: Type of the device, such as "cpu".

    Returns:
        The peers by name, and a line for each one that is missing.
    """
    found: dict[str, Attention] = {}
    missing: list[str] = []
    for name, load in (("transformers", _transformers), ("mmcv", _mmcv)):
        try:
            found[name] = load(device_type)
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            missing.append(f"{name} was not measured: {type(error).__name__}: {error}")
    return found, missing


def level_tensors(spatial_shapes: Sequence[Size], device: torch.device) -> tuple[Tensor, Tensor]:
    """Level sizes (L, 2) and starts (L,) as tensors, as the other packages want them."""
    shapes = torch.tensor(spatial_shapes, dtype=torch.long, device=device)
    areas = shapes.prod(1)
    return shapes, areas.cumsum(0) - areas


class _WithLevelTensors:
    """Calls a peer with level tensors that are made once per set of levels, not once per call."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._tensors: dict[Any, tuple[Tensor, Tensor]] = {}

    def __call__(
        self, value: Tensor, spatial_shapes: Sequence[Size], locations: Tensor, weights: Tensor
    ) -> Tensor:
        key = (tuple(spatial_shapes), value.device)
        if key not in self._tensors:
            self._tensors[key] = level_tensors(spatial_shapes, value.device)
        output: Tensor = self._call(value, *self._tensors[key], spatial_shapes, locations, weights)
        return output


def _transformers(device_type: str) -> Attention:
    module = importlib.import_module("transformers.models.deformable_detr.modeling_deformable_detr")
    layer = module.MultiScaleDeformableAttention()

    def call(
        value: Tensor,
        shapes: Tensor,
        starts: Tensor,
        sizes: Any,
        locations: Tensor,
        weights: Tensor,
    ) -> Any:
        return layer(value, shapes, list(sizes), starts, locations, weights, 64)

    return _WithLevelTensors(call)


def _mmcv(device_type: str) -> Attention:
    module = importlib.import_module("mmcv.ops.multi_scale_deform_attn")

    def call(
        value: Tensor,
        shapes: Tensor,
        starts: Tensor,
        sizes: Any,
        locations: Tensor,
        weights: Tensor,
    ) -> Any:
        if device_type == "cpu":
            return module.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
        return module.MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, locations, weights, 64
        )

    return _WithLevelTensors(call)
