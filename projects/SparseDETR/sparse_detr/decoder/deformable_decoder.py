"""The decoder with deformable cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.deformable_attention import MultiScaleDeformableAttention
from ..structures import DecoderOutput, FeatureTokens, Predictions, Sampling, Size
from .decoder_stack import Decoder, DecoderLayer
from .reference_position import ReferencePosition


class DeformableDecoderLayer(DecoderLayer):
    """Self-attention, deformable cross-attention and feed-forward network, post-norm.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_levels: Levels L.
        num_points: Points P per head and level.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training; also on the self-attention weights.
        project_after_sampling: See :class:`MultiScaleDeformableAttention`.

    Source: Deformable DETR, section 4.1.
    """

    cross_attn: MultiScaleDeformableAttention

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
        super().__init__(
            nn.MultiheadAttention(hidden_dim, num_heads, dropout, batch_first=True),
            MultiScaleDeformableAttention(
                hidden_dim, num_heads, num_levels, num_points, project_after_sampling
            ),
            hidden_dim,
            feedforward_dim,
            dropout,
        )
        self.cross_attn.reset_parameters()

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        spatial_shapes: Sequence[Size],
        valid_sizes: Tensor | None,
        query_mask: Tensor | None = None,
        with_sampling: bool = False,
    ) -> tuple[Tensor, Sampling | None]:
        """Updated queries, and where they looked if that is asked for.

        Args:
            content: (B, Q, C).
            position: (B, Q, C).
            reference_points: (B, Q, L, 2) or (B, Q, L, 4), normalised to the padded maps.
            memory: (B, N, C).
            spatial_shapes: L pairs (H_l, W_l).
            valid_sizes: (B, L, 2) rows and columns that the images cover, or None without padding.
            query_mask: Which rows may be seen; see :meth:`DecoderLayer.among_queries`.
            with_sampling: Give the sampling of the cross-attention.
        """
        content = self.among_queries(content, position, query_mask)
        attended, sampling = self.cross_attn(
            content + position,
            reference_points,
            memory,
            spatial_shapes,
            valid_sizes=valid_sizes,
            with_sampling=with_sampling,
        )
        return self.updated(content, attended), sampling


class DeformableDecoder(Decoder):
    """A stack of layers with deformable cross-attention; see :class:`Decoder`.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_levels: Levels L.
        num_layers: Layers D.
        num_points: Points P per head and level.
        feedforward_dim: Width of the feed-forward networks.
        dropout: Probability, in training.
        refine_boxes: Each layer starts from the boxes of the layer before, without gradient.
        checkpoint_activations: Recompute activations in the backward pass to save memory.
        project_after_sampling: See :class:`MultiScaleDeformableAttention`.
        shared_norm: A norm in front of the heads that all layers share.
        reference_position: See :class:`Decoder`.
        look_forward_twice: See :class:`Decoder`.

    Source: Deformable DETR, section 4.2 and appendix A.4; DINO, section 3.5, for the last three.
    """

    needs_references = True

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_levels: int,
        num_layers: int = 6,
        num_points: int = 4,
        feedforward_dim: int = 1024,
        dropout: float = 0.1,
        refine_boxes: bool = True,
        checkpoint_activations: bool = False,
        project_after_sampling: bool | None = None,
        shared_norm: bool = False,
        reference_position: ReferencePosition | None = None,
        look_forward_twice: bool = False,
    ) -> None:
        layers = (
            DeformableDecoderLayer(
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
        super().__init__(
            layers,
            refine_boxes,
            checkpoint_activations,
            nn.LayerNorm(hidden_dim) if shared_norm else None,
            reference_position,
            look_forward_twice,
        )

    def shared_view(self, memory: Tensor, tokens: FeatureTokens) -> tuple[Tensor, FeatureTokens]:
        """Memory and tokens as they are."""
        return memory, tokens

    def surroundings(
        self, view: tuple[Tensor, FeatureTokens], reference: Tensor | None
    ) -> tuple[Any, ...]:
        """References on the padded maps, memory, shapes and extents."""
        assert reference is not None, "the detector checks that the queries have references"
        memory, tokens = view
        scale = tokens.valid_ratios[:, None]  # (B, 1, L, 2)
        if reference.shape[-1] == 4:
            scale = torch.cat([scale, scale], dim=-1)
        return reference[:, :, None] * scale, memory, tokens.spatial_shapes, tokens.value_extents

    def with_looks(
        self,
        predictions: tuple[Predictions, ...],
        looks: Sequence[Sampling],
        query_mask: Tensor | None,
    ) -> DecoderOutput:
        """The output with the sampling of each layer; rows that are no queries weigh nothing."""
        return DecoderOutput(
            predictions, sampling=tuple(look.of_queries(query_mask) for look in looks)
        )
