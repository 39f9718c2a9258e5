"""Inputs and a plain scalar reference for the tests of deformable attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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


def scalar_reference(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """The definition, one number at a time."""
    batch, _, heads, channels = value.shape
    _, queries, _, _, points, _ = locations.shape
    output = torch.zeros(batch, queries, heads, channels, dtype=value.dtype)
    for b in range(batch):
        for q in range(queries):
            for h in range(heads):
                start = 0
                for level, (height, width) in enumerate(shapes):
                    for p in range(points):
                        x, y = (float(number) for number in locations[b, q, h, level, p])
                        weight = float(weights[b, q, h, level, p])
                        x, y = x * width - 0.5, y * height - 0.5
                        if not (-1 < x < width and -1 < y < height):
                            continue
                        for row in (math.floor(y), math.floor(y) + 1):
                            for column in (math.floor(x), math.floor(x) + 1):
                                if 0 <= row < height and 0 <= column < width:
                                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                                    token = start + row * width + column
                                    output[b, q, h] += weight * share * value[b, token, h]
                    start += height * width
    return output.flatten(2)


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
