"""Random inputs for the tests of deformable attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Shapes = list[tuple[int, int]]
Attention = Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]


def make_inputs(
    shapes: Shapes,
    *,
    batch: int = 2,
    queries: int = 5,
    heads: int = 2,
    channels: int = 4,
    points: int = 3,
    dtype: torch.dtype = torch.float64,
    low: float = -0.5,
    high: float = 1.5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Random values, locations in [low, high) and weights that do not sum to one."""
    tokens = sum(height * width for height, width in shapes)
    value = torch.randn(batch, tokens, heads, channels, dtype=dtype)
    locations = torch.rand(batch, queries, heads, len(shapes), points, 2, dtype=dtype)
    weights = torch.randn(batch, queries, heads, len(shapes), points, dtype=dtype)
    return value, locations * (high - low) + low, weights


def away_from_kinks(locations: Tensor, shapes: Shapes, margin: float = 0.05) -> Tensor:
    """Moves locations so that no pixel coordinate is within `margin` of a whole number.

    At whole numbers the interpolation has a kink: its gradient jumps, and finite differences
    mislead.
    """
    sizes = torch.tensor([(width, height) for height, width in shapes], dtype=locations.dtype)
    sizes = sizes.view(len(shapes), 1, 2)
    pixels = locations * sizes - 0.5
    fraction = (pixels - pixels.floor()).clamp(margin, 1 - margin)
    return (pixels.floor() + fraction + 0.5) / sizes


def output_and_gradients(
    attention: Attention,
    value: Tensor,
    shapes: Shapes,
    locations: Tensor,
    weights: Tensor,
    grad: Tensor,
) -> list[Tensor]:
    """The output, and the gradients of value, locations and weights."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (value, locations, weights)]
    output = attention(leaves[0], shapes, leaves[1], leaves[2])
    return [output.detach(), *torch.autograd.grad(output, leaves, grad)]
