"""The encoder with deformable attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..layers.deformable_attention import MultiScaleDeformableAttention
from ..structures import FeatureTokens, Size
from .encoder_stack import Encoder, EncoderLayer


class DeformableEncoderLayer(EncoderLayer):
    """Deformable attention and feed-forward network, each with residual and post-norm.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_levels: Levels L.
        num_points: Points P per head and level.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training.
        project_after_sampling: See :class:`MultiScaleDeformableAttention`.

    Source: Deformable DETR, section 4.1.
    """

    self_attn: MultiScaleDeformableAttention

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int = 4,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        project_after_sampling: bool | None = None,
    ) -> None:
        attention = MultiScaleDeformableAttention(
            hidden_dim, num_heads, num_levels, num_points, project_after_sampling
        )
        super().__init__(attention, hidden_dim, feedforward_dim, dropout)
        attention.reset_parameters()

    def forward(
        self,
        rows: Tensor,
        memory: Tensor,
        position: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[Size],
        valid_sizes: Tensor | None,
    ) -> Tensor:
        """Updated rows.

        Args:
            rows: (B, K, C) tokens to update.
            memory: (B, N, C) tokens that give the values.
            position: (B, K, C).
            reference_points: (B, K, L, 2).
            spatial_shapes: L pairs (H_l, W_l).
            valid_sizes: (B, L, 2) rows and columns that the images cover, or None without padding.
        """
        attended, _ = self.self_attn(
            rows + position, reference_points, memory, spatial_shapes, valid_sizes
        )
        return self.updated(rows, attended)


class DeformableEncoder(Encoder):
    """A stack of layers with deformable attention; see :class:`Encoder`.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_levels: Levels L.
        num_layers: Layers E.
        num_points: Points P per head and level.
        feedforward_dim: Width of the feed-forward networks.
        dropout: Probability, in training.
        checkpoint_activations: Recompute activations in the backward pass to save memory.
        project_after_sampling: See :class:`MultiScaleDeformableAttention`.

    Source: Sparse DETR, section 3.2; Deformable DETR, section 4.1.
    """

    layer_type: type[DeformableEncoderLayer] = DeformableEncoderLayer

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_levels: int,
        num_layers: int = 6,
        num_points: int = 4,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        checkpoint_activations: bool = False,
        project_after_sampling: bool | None = None,
    ) -> None:
        layers = (
            self.layer_type(
                hidden_dim,
                num_heads,
                num_levels,
                num_points,
                feedforward_dim,
                dropout,
                project_after_sampling,
            )
            for _ in range(num_layers)
        )
        super().__init__(layers, checkpoint_activations)

    def place(self, tokens: FeatureTokens, indices: Tensor | None) -> tuple[Any, ...]:
        """Positions, reference points, shapes and extents; see :meth:`Encoder.place`."""
        position = tokens.position if indices is None else tokens.positions.of(indices)
        references = tokens.reference_points(indices)
        return position, references, tokens.spatial_shapes, tokens.value_extents
