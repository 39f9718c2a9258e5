"""Deformable attention, encoder layer and decoder layer, step by step as released."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...decoder import DeformableDecoderLayer
from ...encoder import DeformableEncoderLayer
from ...layers.deformable_attention import MultiScaleDeformableAttention
from ...layers.feed_forward import FeedForward
from ...structures import Size
from ..grid_sample_path import released_attention


class ReleasedAttention:
    """The steps of a deformable attention with the weights of ours.

    Args:
        attention: The module that holds the weights.
    """

    def __init__(self, attention: MultiScaleDeformableAttention) -> None:
        self.attention = attention

    def __call__(
        self,
        query: Tensor,
        reference_points: Tensor,
        source: Tensor,
        spatial_shapes: Sequence[Size],
        padding_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attended features (B, Q, C), sampling locations and weights.

        Args:
            query: (B, Q, C).
            reference_points: (B, Q, L, 2 or 4).
            source: (B, N, C); all of it is projected, and copied to put zeros on padding.
            spatial_shapes: L pairs (H_l, W_l).
            padding_mask: (B, N) bool.
        """
        layer = self.attention
        batch, queries, _ = query.shape
        heads, levels, points = layer.num_heads, layer.num_levels, layer.num_points
        value = layer.value_proj(source)
        value = value.masked_fill(padding_mask[..., None], 0.0)
        value = value.view(batch, source.shape[1], heads, -1)
        offsets = layer.sampling_offsets(query).view(batch, queries, heads, levels, points, 2)
        weights = layer.attention_weights(query).view(batch, queries, heads, levels * points)
        weights = weights.softmax(-1).view(batch, queries, heads, levels, points)
        reference = reference_points[:, :, None, :, None]
        if reference.shape[-1] == 2:
            size = torch.tensor([(w, h) for h, w in spatial_shapes], device=query.device)
            locations = reference + offsets / size[None, None, None, :, None]
        else:
            locations = reference[..., :2] + offsets / points * reference[..., 2:] * 0.5
        attended = released_attention(value, spatial_shapes, locations, weights)
        return layer.output_proj(attended), locations, weights


def released_feed_forward(ffn: FeedForward, norm: nn.LayerNorm, rows: Tensor) -> Tensor:
    """(B, Q, C) after the feed-forward network, its residual and its norm."""
    output: Tensor = norm(rows + ffn(rows))
    return output


def released_encoder_layer(
    layer: DeformableEncoderLayer,
    rows: Tensor,
    position: Tensor,
    reference_points: Tensor,
    memory: Tensor,
    spatial_shapes: Sequence[Size],
    padding_mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Updated rows (B, K, C), sampling locations and weights; arguments as the layer's."""
    attended, locations, weights = ReleasedAttention(layer.self_attn)(
        rows + position, reference_points, memory, spatial_shapes, padding_mask
    )
    rows = layer.norm1(rows + layer.dropout(attended))
    return released_feed_forward(layer.ffn, layer.norm2, rows), locations, weights


def released_decoder_layer(
    layer: DeformableDecoderLayer,
    content: Tensor,
    position: Tensor,
    reference_points: Tensor,
    memory: Tensor,
    spatial_shapes: Sequence[Size],
    padding_mask: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Updated queries (B, Q, C), sampling locations and weights; arguments as the layer's.

    The self-attention also gives its weights, which nobody reads: as released.
    """
    query = content + position
    attended, _ = layer.self_attn(query, query, content)
    content = layer.norm2(content + layer.dropout2(attended))
    attended, locations, weights = ReleasedAttention(layer.cross_attn)(
        content + position, reference_points, memory, spatial_shapes, padding_mask
    )
    content = layer.norm1(content + layer.dropout1(attended))
    return released_feed_forward(layer.ffn, layer.norm3, content), locations, weights
