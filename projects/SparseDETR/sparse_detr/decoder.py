"""The decoder: queries attend to each other and to the memory, and refine their boxes.

Role in the flow: query selection -> **decoder** -> heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .heads import DetectionHeads
from .layers.activation_checkpoint import run_layer
from .layers.deformable_attention import MultiScaleDeformableAttention
from .layers.dropout import Dropout
from .layers.feed_forward import FeedForward
from .layers.initialization import xavier_matrices_
from .layers.residual import add_update
from .structures import (
    DecoderOutput,
    DecoderQueries,
    FeatureTokens,
    Predictions,
    Sampling,
    Size,
)


class DeformableDecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention and feed-forward network, post-norm.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_levels: Levels L.
        num_points: Points P per head and level.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training; also on the self-attention weights.
        project_after_sampling: See :class:`MultiScaleDeformableAttention`.

    Source: Deformable DETR, section 4.1. The norms are numbered as in the released checkpoints:
        norm2 follows the self-attention, norm1 the cross-attention.
    """

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
        super().__init__()
        self.self_attn = nn.MultiheadAttention(hidden_dim, num_heads, dropout, batch_first=True)
        self.dropout2 = Dropout(dropout)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.cross_attn = MultiScaleDeformableAttention(
            hidden_dim, num_heads, num_levels, num_points, project_after_sampling
        )
        self.dropout1 = Dropout(dropout)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.ffn = FeedForward(hidden_dim, feedforward_dim, dropout)
        self.norm3 = nn.LayerNorm(hidden_dim)
        xavier_matrices_(self)
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
            query_mask: (B, Q) bool, False on rows that no query may see; None if all may be seen.
            with_sampling: Give the sampling of the cross-attention.
        """
        query = content + position
        unseen = None if query_mask is None else ~query_mask
        # With dropout, torch's attention keeps three (B, H, Q, Q) maps on a CPU; they are cheaper
        # computed again than kept.
        recompute = self.training and self.self_attn.dropout > 0 and query.device.type == "cpu"
        attended, _ = run_layer(
            self.self_attn,
            recompute and torch.is_grad_enabled(),
            query,
            query,
            content,
            key_padding_mask=unseen,
            need_weights=False,
        )
        content = self.norm2(add_update(content, self.dropout2(attended)))
        attended, sampling = self.cross_attn(
            content + position,
            reference_points,
            memory,
            spatial_shapes,
            valid_sizes=valid_sizes,
            with_sampling=with_sampling,
        )
        content = self.norm1(add_update(content, self.dropout1(attended)))
        return self.norm3(add_update(content, self.ffn(content))), sampling


class DeformableDecoder(nn.Module):
    """A stack of decoder layers with optional iterative box refinement.

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

    Source: Deformable DETR, section 4.2 and appendix A.4. The released code runs each box head
        twice, for the refinement and for the output; here one run serves both.
    """

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
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
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
        self.refine_boxes = refine_boxes
        self.checkpoint_activations = checkpoint_activations

    def forward(
        self,
        queries: DecoderQueries,
        memory: Tensor,
        tokens: FeatureTokens,
        heads: DetectionHeads,
        all_layers: bool,
        with_sampling: bool = False,
    ) -> DecoderOutput:
        """Predictions of the decoder layers.

        Args:
            queries: Starting point.
            memory: (B, N, C) of the encoder.
            tokens: The tokens, for shapes, padding and valid ratios.
            heads: The detection heads.
            all_layers: Predictions of every layer (for losses) instead of the final one only.
            with_sampling: Keep the sampling of the cross-attentions.
        """
        content, reference = queries.content, queries.reference_points
        point_scale = tokens.valid_ratios[:, None]  # (B, 1, L, 2)
        box_scale = torch.cat([point_scale, point_scale], dim=-1)
        predictions: list[Predictions] = []
        samplings: list[Sampling] = []
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            scale = point_scale if reference.shape[-1] == 2 else box_scale
            content, sampling = run_layer(
                layer,
                self.checkpoint_activations and self.training,
                content,
                queries.position,
                reference[:, :, None] * scale,
                memory,
                tokens.spatial_shapes,
                tokens.value_extents,
                queries.query_mask,
                with_sampling,
            )
            if sampling is not None:
                samplings.append(sampling.of_queries(queries.query_mask))
            supervised = all_layers or index == last
            if supervised or self.refine_boxes:
                head = heads.decoder(index)
                boxes = head.boxes(content, reference)
                if supervised:
                    logits = head.logits(content)
                    predictions.append(Predictions(logits, boxes, queries.query_mask))
                if self.refine_boxes:
                    reference = boxes.detach()
        return DecoderOutput(tuple(predictions), tuple(samplings))
