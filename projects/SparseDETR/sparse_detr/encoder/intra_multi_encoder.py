"""SMCA's multi-scale encoder with attention: within every scale, and among all of them.

Role in the flow: token selection -> **encoder** -> query selection.

No code of it was ever published: this is a reconstruction from the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..structures import FeatureTokens, Size
from .dense_encoder import DenseEncoderLayer
from .encoder_stack import Encoder


class IntraMultiEncoderLayer(DenseEncoderLayer):
    """A dense layer whose tokens attend to those of their own scale, or to those of all scales.

    All scales share its weights.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training; also on the attention weights.
        joint: Attend among all scales.
    """

    def __init__(
        self, hidden_dim: int, num_heads: int, feedforward_dim: int, dropout: float, joint: bool
    ) -> None:
        super().__init__(hidden_dim, num_heads, feedforward_dim, dropout)
        self.joint = joint

    def forward(  # type: ignore[override]  # the levels stand in place of the memory's position
        self,
        rows: Tensor,
        memory: Tensor,
        position: Tensor,
        spatial_shapes: Sequence[Size],
        padding_mask: Tensor | None,
    ) -> Tensor:
        """Updated rows.

        Args:
            rows: (B, N, C) all tokens.
            memory: The same tensor.
            position: (B, N, C).
            spatial_shapes: L pairs (H_l, W_l).
            padding_mask: (B, N) bool, True on padding; None without padding.
        """
        if self.joint:
            return super().forward(rows, rows, position, position, padding_mask)
        sizes = [height * width for height, width in spatial_shapes]
        masks = (
            [None] * len(sizes)
            if padding_mask is None
            else padding_mask.split_with_sizes(sizes, dim=1)
        )
        scales = zip(
            rows.split_with_sizes(sizes, dim=1),
            position.split_with_sizes(sizes, dim=1),
            masks,
            strict=True,
        )
        updated = [super(IntraMultiEncoderLayer, self).forward(r, r, p, p, m) for r, p, m in scales]
        return torch.cat(updated, dim=1)


class IntraMultiEncoder(Encoder):
    """A stack of dense layers within the scales, with some among them; see :class:`Encoder`.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_layers: Layers E.
        joint_layers: Numbers of the layers whose tokens attend among all scales; the first is 0.
        feedforward_dim: Width of the feed-forward networks.
        dropout: Probability, in training; also on the attention weights.
        checkpoint_activations: Recompute activations in the backward pass to save memory.

    Source: SMCA, section 3.4, "2Intra-Multi-2Intra". A reconstruction: there is no released code.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_layers: int = 5,
        joint_layers: Sequence[int] = (2,),
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        checkpoint_activations: bool = False,
    ) -> None:
        outside = [index for index in joint_layers if not 0 <= index < num_layers]
        if outside:
            raise ValueError(
                f"joint_layers must be numbers of the {num_layers} layers, from 0 on, got {outside}"
            )
        layers = [
            IntraMultiEncoderLayer(
                hidden_dim, num_heads, feedforward_dim, dropout, index in joint_layers
            )
            for index in range(num_layers)
        ]
        super().__init__(layers, checkpoint_activations)

    def place(self, tokens: FeatureTokens, indices: Tensor | None) -> tuple[Any, ...]:
        """Positions, shapes and padding; see :meth:`Encoder.place`.

        Raises:
            ValueError: Not all tokens are to be updated.
        """
        if indices is not None:
            raise ValueError(
                "token_selection must be None for an IntraMultiEncoder: its scales attend as a "
                "whole"
            )
        return tokens.position, tokens.spatial_shapes, tokens.key_padding_mask
