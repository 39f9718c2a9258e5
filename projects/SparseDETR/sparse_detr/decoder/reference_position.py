"""Positions of the decoder's queries, made in every layer from the boxes that it starts from.

Role in the flow: inside the decoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..layers.initialization import xavier_matrices_
from ..layers.mlp import MLP
from ..layers.precision import at_least_float32
from ..layers.sine_encoding import sine_features


class ReferencePosition(nn.Module):
    """A small network over the sine features of a reference box.

    Args:
        hidden_dim: Channels C, divisible by 4.
        scaled_to_padded_map: False describes the box within its image. True is the released
            behaviour: within the padded map of the finest level, so that a position depends on who
            shares the batch. On an image without padding both are the same.

    Source: DAB-DETR, section 4.2; DINO, released code (order y, x, w, h).
    """

    def __init__(self, hidden_dim: int, scaled_to_padded_map: bool = False) -> None:
        super().__init__()
        if hidden_dim % 4:
            raise ValueError(f"hidden_dim must be divisible by 4, got {hidden_dim}")
        self.hidden_dim = hidden_dim
        self.scaled_to_padded_map = scaled_to_padded_map
        self.mlp = MLP(2 * hidden_dim, hidden_dim, hidden_dim, num_layers=2)
        xavier_matrices_(self)

    def forward(
        self, reference: Tensor, valid_ratios: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """(B, Q, C) positions.

        Args:
            reference: (B, Q, 4) boxes cxcywh, normalised to the image.
            valid_ratios: (B, L, 2) share of each level that the image covers, order (x, y).
            dtype: Of the network's input; None for that of the references.
        """
        boxes = reference.to(at_least_float32(reference.dtype))
        if self.scaled_to_padded_map:
            boxes = boxes * valid_ratios[:, :1].repeat(1, 1, 2)
        angles = boxes[..., [1, 0, 2, 3]] * (2 * math.pi)
        with torch.autocast(reference.device.type, enabled=False):
            features = sine_features(angles, self.hidden_dim // 2).flatten(-2)
        position: Tensor = self.mlp(features.to(reference.dtype if dtype is None else dtype))
        return position
