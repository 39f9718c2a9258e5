"""Sine and cosine features of angles, for positions of tokens and of boxes."""

from __future__ import annotations

import torch
from torch import Tensor


def sine_features(angles: Tensor, num_features: int, temperature: float = 10000.0) -> Tensor:
    """Interleaved sine and cosine features.

    Feature k is sin (k even) or cos (k odd) of ``angle / temperature ** (2 * (k // 2) / n)``.

    Args:
        angles: (...) radians.
        num_features: Number n of features per angle, even.
        temperature: Ratio of the longest to the shortest wavelength.

    Returns:
        (..., n).

    Source: DETR, released code (position_encoding); the same rule serves boxes in two-stage
        Deformable DETR.
    """
    exponent = 2 * torch.div(
        torch.arange(num_features, dtype=angles.dtype, device=angles.device),
        2,
        rounding_mode="floor",
    )
    scaled = angles[..., None] / temperature ** (exponent / num_features)
    return torch.stack([scaled[..., 0::2].sin(), scaled[..., 1::2].cos()], dim=-1).flatten(-2)
