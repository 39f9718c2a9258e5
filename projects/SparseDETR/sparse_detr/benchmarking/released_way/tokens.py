"""Tokens, positions, reference points and proposals, made anew in each call as released."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.sine_encoding import sine_features
from ...structures import Size


@dataclass(frozen=True)
class ReleasedTokens:
    """All cells of all levels of a batch.

    Attributes:
        features: (B, N, C).
        position: (B, N, C) with the level embedding.
        padding_mask: (B, N) bool, True on padding.
        spatial_shapes: L pairs (H_l, W_l).
        valid_ratios: (B, L, 2), order (x, y).
    """

    features: Tensor
    position: Tensor
    padding_mask: Tensor
    spatial_shapes: tuple[Size, ...]
    valid_ratios: Tensor


def released_tokens(
    maps: Sequence[Tensor], image_mask: Tensor, level_embed: Tensor
) -> ReleasedTokens:
    """Tokens of projected maps.

    Args:
        maps: L tensors (B, C, H_l, W_l).
        image_mask: (B, H, W) bool, True on padding.
        level_embed: (L, C).
    """
    features, positions, masks, ratios = [], [], [], []
    for level, level_map in enumerate(maps):
        size = level_map.shape[-2:]
        mask = F.interpolate(image_mask[None].float(), size=size)[0].to(torch.bool)
        sine = sine_position(mask, level_map.shape[1]).permute(0, 3, 1, 2).to(level_map.dtype)
        position = sine.flatten(2).transpose(1, 2) + level_embed[level].view(1, 1, -1)
        features.append(level_map.flatten(2).transpose(1, 2))
        positions.append(position)
        masks.append(mask.flatten(1))
        rows, columns = (~mask[:, :, 0]).sum(1), (~mask[:, 0, :]).sum(1)
        ratios.append(torch.stack([columns.float() / size[1], rows.float() / size[0]], dim=-1))
    return ReleasedTokens(
        torch.cat(features, 1),
        torch.cat(positions, 1),
        torch.cat(masks, 1),
        tuple((int(m.shape[-2]), int(m.shape[-1])) for m in maps),
        torch.stack(ratios, 1),
    )


def sine_position(mask: Tensor, channels: int) -> Tensor:
    """(B, H, W, C) sine encoding of the cells that are not padding."""
    valid = ~mask
    y, x = valid.cumsum(1, dtype=torch.float32), valid.cumsum(2, dtype=torch.float32)
    y = (y - 0.5) / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
    x = (x - 0.5) / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
    half = channels // 2
    return torch.cat([sine_features(y, half), sine_features(x, half)], dim=-1)


def cell_grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres y and x (H, W) of the cells of a level, in cells."""
    y = torch.linspace(0.5, height - 0.5, height, device=device)
    x = torch.linspace(0.5, width - 0.5, width, device=device)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return grid_y, grid_x


def released_reference_points(tokens: ReleasedTokens) -> Tensor:
    """(B, N, L, 2) reference points of all tokens on all levels."""
    ratios = tokens.valid_ratios
    points = []
    for level, (height, width) in enumerate(tokens.spatial_shapes):
        y, x = cell_grid(height, width, ratios.device)
        y = y.reshape(-1)[None] / (ratios[:, None, level, 1] * height)
        x = x.reshape(-1)[None] / (ratios[:, None, level, 0] * width)
        points.append(torch.stack([x, y], dim=-1))
    return torch.cat(points, 1)[:, :, None] * ratios[:, None]


def released_proposals(tokens: ReleasedTokens) -> tuple[Tensor, Tensor]:
    """Logits (B, N, 4) of the tokens' boxes, +inf without one, and (B, N, 1) bool: inside."""
    batch = len(tokens.padding_mask)
    boxes, start = [], 0
    for level, (height, width) in enumerate(tokens.spatial_shapes):
        mask = tokens.padding_mask[:, start : start + height * width].view(batch, height, width)
        rows, columns = (~mask[:, :, 0]).sum(1), (~mask[:, 0, :]).sum(1)
        y, x = cell_grid(height, width, mask.device)
        scale = torch.stack([columns, rows], dim=1).view(batch, 1, 1, 2)
        centres = torch.stack([x, y], dim=-1).expand(batch, -1, -1, -1) / scale
        sizes = torch.ones_like(centres) * 0.05 * (2.0**level)
        boxes.append(torch.cat([centres, sizes], dim=-1).view(batch, -1, 4))
        start += height * width
    proposals = torch.cat(boxes, 1)
    inside = ((proposals > 0.01) & (proposals < 0.99)).all(-1, keepdim=True)
    logits = torch.log(proposals / (1 - proposals))
    logits = logits.masked_fill(tokens.padding_mask[..., None], float("inf"))
    return logits.masked_fill(~inside, float("inf")), inside
