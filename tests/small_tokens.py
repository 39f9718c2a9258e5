"""Tokens of chosen sizes and paddings, without images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparse_detr.feature_projection import PositionEmbedding
from sparse_detr.structures import FeatureMaps, FeatureTokens, KeptTokens, Sampling

Size = tuple[int, int]


def tokens_of(
    shapes: Sequence[Size],
    valid: Sequence[Sequence[Size]] | None = None,
    hidden_dim: int = 8,
    batch: int = 1,
) -> FeatureTokens:
    """Random float64 tokens.

    Args:
        shapes: (H_l, W_l) of each level.
        valid: For each image the (rows, columns) that it covers of each level; None for all.
        hidden_dim: Channels.
        batch: Images, where ``valid`` is None.
    """
    generator = torch.Generator().manual_seed(3)
    valid = [tuple(shapes)] * batch if valid is None else valid
    maps = tuple(
        torch.randn(len(valid), hidden_dim, *shape, generator=generator).double()
        for shape in shapes
    )
    embedding = PositionEmbedding(hidden_dim, len(shapes)).double()
    tokens: FeatureTokens = embedding(FeatureMaps(maps, tuple(tuple(v) for v in valid)))
    return tokens


def kept(rows: Sequence[Sequence[int]], counts: Sequence[int]) -> KeptTokens:
    """Kept tokens from plain lists."""
    return KeptTokens(torch.tensor(rows), tuple(counts))


def sampling_at(locations: torch.Tensor, weights: torch.Tensor) -> Sampling:
    """Sampling of one level, head and point per query: locations (B, Q, 2), weights (B, Q)."""
    return Sampling(locations[:, :, None, None, None], weights[:, :, None, None, None])
