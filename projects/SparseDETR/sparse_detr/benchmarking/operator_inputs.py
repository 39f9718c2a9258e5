"""Inputs of the operators as the detectors make them: ResNet-50 on an image of 800 x 1066 pixels.

Where an attention reads decides how well caches serve it, so the samples follow the detectors:
tokens look a few cells around their own place, decoder queries look around boxes all over the
image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..layers.ms_deform_attn_reference import sampling_torch

SPATIAL_SHAPES = ((100, 134), (50, 67), (25, 34), (13, 17))
HEADS, CHANNELS, POINTS = 8, 32, 4
# Spread of the learned offsets around their initial pattern, in cells.
_OFFSET_SPREAD = 1.5


@dataclass(frozen=True)
class QuerySet:
    """Which queries attend.

    Attributes:
        name: For tables.
        count: Gives the number of queries from the number of tokens.
        order: "objects" (tokens in and around a few boxes, best first, as a trained selection
            keeps them), "random" (distinct tokens of the whole map in random order, the least that
            caches can serve), "raster" (all, or evenly spaced tokens, row after row) or "boxes"
            (boxes anywhere, as decoder queries have).
    """

    name: str
    count: Callable[[int], int]
    order: str


QUERY_SETS = {
    "all": QuerySet("all tokens", lambda tokens: tokens, "raster"),
    "tenth": QuerySet("10 % of the tokens, on objects", lambda tokens: tokens // 10, "objects"),
    "tenth-random": QuerySet("10 % of the tokens, anywhere", lambda tokens: tokens // 10, "random"),
    "tenth-raster": QuerySet(
        "10 % of the tokens, row by row", lambda tokens: tokens // 10, "raster"
    ),
    "300": QuerySet("300 queries", lambda tokens: 300, "boxes"),
}


@dataclass
class OperatorInputs:
    """Inputs of all operators for one set of queries; see the operators for the shapes.

    Attributes:
        source: (B, N, C).
        value: (B, N, H, D).
        reference_points: (B, Q, L, 2 or 4).
        sampling_offsets: (B, Q, H, L, P, 2).
        attention_logits: (B, Q, H, L, P).
        sampling_locations: (B, Q, H, L, P, 2), what the three give.
        attention_weights: (B, Q, H, L, P), likewise.
        value_weight: (H * D, C).
        value_bias: (H * D).
        grad_output: (B, Q, H * D).
        spatial_shapes: L pairs (H_l, W_l).
    """

    source: Tensor
    value: Tensor
    reference_points: Tensor
    sampling_offsets: Tensor
    attention_logits: Tensor
    value_weight: Tensor
    value_bias: Tensor
    grad_output: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    sampling_locations: Tensor = field(init=False)
    attention_weights: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sampling_locations, self.attention_weights = sampling_torch(
            self.reference_points,
            self.sampling_offsets,
            self.attention_logits,
            self.spatial_shapes,
        )

    @property
    def num_tokens(self) -> int:
        """Tokens N of one image."""
        return self.source.shape[1]

    def gathered_bytes(self) -> int:
        """Bytes of values that one forward pass of the sampling reads: every corner that exists."""
        corners = 0
        for level, (height, width) in enumerate(self.spatial_shapes):
            size = self.sampling_locations.new_tensor([width, height])
            low = (self.sampling_locations[:, :, :, level] * size - 0.5).floor()
            for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
                cell = low + low.new_tensor(corner)
                inside = ((cell >= 0) & (cell < size)).all(-1)
                corners += int(inside.sum())
        return corners * self.value.shape[3] * self.value.element_size()


def make_operator_inputs(
    queries: QuerySet,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    spatial_shapes: tuple[tuple[int, int], ...] = SPATIAL_SHAPES,
    seed: int = 0,
) -> OperatorInputs:
    """Gives inputs for a set of queries, one image.

    Args:
        queries: Which queries.
        device: Where.
        dtype: Of values and gradient; coordinates and weights are float32, or float64 with it.
        spatial_shapes: L pairs (H_l, W_l).
        seed: Of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(height * width for height, width in spatial_shapes)
    count = queries.count(tokens)
    levels, channels = len(spatial_shapes), HEADS * CHANNELS
    exact = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    offsets = _initial_offsets(levels) + _OFFSET_SPREAD * normal(1, count, HEADS, levels, POINTS, 2)
    reference = _reference_points(queries.order, count, spatial_shapes, generator)
    return OperatorInputs(
        source=normal(1, tokens, channels).to(device, dtype),
        value=normal(1, tokens, HEADS, CHANNELS).to(device, dtype),
        reference_points=reference.to(device, exact),
        sampling_offsets=offsets.to(device, exact),
        attention_logits=normal(1, count, HEADS, levels, POINTS).to(device, exact),
        value_weight=(normal(channels, channels) / math.sqrt(channels)).to(device, dtype),
        value_bias=normal(channels).to(device, dtype),
        grad_output=normal(1, count, channels).to(device, dtype),
        spatial_shapes=spatial_shapes,
    )


def _initial_offsets(levels: int) -> Tensor:
    """The pattern that training starts from: a direction per head, point p at distance p + 1."""
    angles = torch.arange(HEADS) * (2 * math.pi / HEADS)
    directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    distance = torch.arange(1, POINTS + 1)
    pattern = directions[:, None, None] * distance[None, None, :, None]
    return pattern.expand(HEADS, levels, POINTS, 2)


def _reference_points(
    order: str,
    count: int,
    spatial_shapes: tuple[tuple[int, int], ...],
    generator: torch.Generator,
) -> Tensor:
    """(1, Q, L, 2) centres of tokens, or (1, Q, L, 4) boxes."""
    levels = len(spatial_shapes)
    if order == "boxes":
        centres = 0.05 + 0.9 * torch.rand(1, count, 1, 2, generator=generator)
        # Sides between 3 % and 60 % of the image, small ones as often as large ones.
        sides = 0.03 * 20 ** torch.rand(1, count, 1, 2, generator=generator)
        return torch.cat([centres, sides], dim=-1).expand(-1, -1, levels, -1).contiguous()
    centres = torch.cat(
        [
            torch.cartesian_prod(
                (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
            )
            for height, width in spatial_shapes
        ]
    ).flip(-1)
    if order == "objects":
        chosen = _object_scores(centres, generator).topk(count).indices
    elif order == "random":
        chosen = torch.randperm(len(centres), generator=generator)[:count]
    elif order == "raster":
        chosen = torch.linspace(0, len(centres) - 1, count).round().long()
    else:
        raise ValueError(f"order must be objects, random, raster or boxes, got {order!r}")
    return centres[chosen].view(1, count, 1, 2).expand(-1, -1, levels, -1).contiguous()


def _object_scores(centres: Tensor, generator: torch.Generator) -> Tensor:
    """(N,) scores that fall off from the centres of seven objects, as many as COCO's images have.

    Args:
        centres: (N, 2) of the tokens, normalised.
        generator: Of the objects' places and sizes, and of noise on the scores.
    """
    objects = 0.1 + 0.8 * torch.rand(7, 2, generator=generator)
    sides = 0.03 * 20 ** torch.rand(7, 2, generator=generator)
    offsets = (centres[:, None] - objects) / sides
    distance: Tensor = offsets.square().sum(-1).sqrt().amin(dim=1)
    return 0.1 * torch.randn(len(centres), generator=generator) - distance
