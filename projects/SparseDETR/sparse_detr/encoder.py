"""The encoder: deformable self-attention over all tokens, or over the kept ones only.

Role in the flow: token selection -> **encoder** -> query selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .heads import DetectionHeads
from .layers.activation_checkpoint import run_layer
from .layers.deformable_attention import MultiScaleDeformableAttention
from .layers.dropout import Dropout
from .layers.feed_forward import FeedForward
from .layers.initialization import xavier_matrices_
from .layers.rebuilt_memory import rebuilt_when_needed
from .layers.residual import add_update
from .query_selection.encoder_proposals import Proposals
from .structures import (
    EncoderOutput,
    FeatureTokens,
    KeptTokens,
    Predictions,
    Size,
    TokenSelection,
)


class DeformableEncoderLayer(nn.Module):
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
        self.self_attn = MultiScaleDeformableAttention(
            hidden_dim, num_heads, num_levels, num_points, project_after_sampling
        )
        self.dropout = Dropout(dropout)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.ffn = FeedForward(hidden_dim, feedforward_dim, dropout)
        self.norm2 = nn.LayerNorm(hidden_dim)
        xavier_matrices_(self)
        self.self_attn.reset_parameters()

    def forward(
        self,
        rows: Tensor,
        position: Tensor,
        reference_points: Tensor,
        memory: Tensor,
        spatial_shapes: Sequence[Size],
        valid_sizes: Tensor | None,
    ) -> Tensor:
        """Updated rows.

        Args:
            rows: (B, K, C) tokens to update.
            position: (B, K, C).
            reference_points: (B, K, L, 2).
            memory: (B, N, C) tokens that give the values.
            spatial_shapes: L pairs (H_l, W_l).
            valid_sizes: (B, L, 2) rows and columns that the images cover, or None without padding.
        """
        attended, _ = self.self_attn(
            rows + position, reference_points, memory, spatial_shapes, valid_sizes
        )
        rows = self.norm1(add_update(rows, self.dropout(attended)))
        output: Tensor = self.norm2(add_update(rows, self.ffn(rows)))
        return output


class DeformableEncoder(nn.Module):
    """A stack of encoder layers; sparse when a selection is given, dense otherwise.

    The kept tokens are the queries; *all* tokens are values in every layer. Tokens that are not
    kept leave the encoder as they came.

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
        super().__init__()
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(
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
        self.checkpoint_activations = checkpoint_activations

    def forward(
        self,
        tokens: FeatureTokens,
        selection: TokenSelection | None,
        num_auxiliary: int = 0,
    ) -> EncoderOutput:
        """The memory.

        Args:
            tokens: The tokens of the batch.
            selection: Which of them to update, or None for all.
            num_auxiliary: Number of first layers whose rows an auxiliary head wants.
        """
        memory = tokens.features
        kept: KeptTokens | None = None
        rebuild: Callable[[], Tensor] | None = None
        if selection is None:
            rows, position, references = memory, tokens.position, tokens.reference_points()
        layer_rows: list[Tensor] = []
        recompute = self.checkpoint_activations and self.training
        for index, layer in enumerate(self.layers):
            if selection is not None and selection.for_layer(index) is not kept:
                kept, rebuild, base = selection.for_layer(index), None, memory
                writer = kept.writer(memory.shape[1])
                rows, position = kept.gather(memory), tokens.positions.of(kept.kept_indices)
                references = tokens.reference_points(kept.kept_indices)
            with rebuilt_when_needed(memory, None if recompute else rebuild):
                rows = run_layer(
                    layer,
                    recompute,
                    rows,
                    position,
                    references,
                    memory,
                    tokens.spatial_shapes,
                    tokens.value_extents,
                )
            if kept is None:
                memory = rows
            elif torch.is_grad_enabled():  # the backward pass reads the memory of every layer
                memory = writer.written(memory, rows)
                rebuild = partial(writer.written, base.detach(), rows.detach())
            else:
                memory = memory.clone() if memory is tokens.features else memory
                writer.write_(memory, rows)
            if index < num_auxiliary:
                layer_rows.append(rows)
        alone = selection is not None and len(selection.layers) == 1
        return EncoderOutput(memory, tuple(layer_rows), kept if alone else None)


def auxiliary_predictions(
    encoded: EncoderOutput,
    selection: TokenSelection | None,
    proposals: Proposals | None,
    heads: DetectionHeads,
) -> tuple[Predictions, ...]:
    """Predictions of the auxiliary heads on the rows of the first encoder layers.

    Args:
        encoded: Output of the encoder with ``layer_rows``; without them nothing is predicted.
        selection: The kept tokens, or None for a dense encoder.
        proposals: Box proposals of the tokens.
        heads: The detection heads.

    Raises:
        ValueError: Rows to supervise but no proposals.

    Source: Sparse DETR, section 3.3 (encoder auxiliary loss).
    """
    if not encoded.layer_rows:
        return ()
    if proposals is None:
        raise ValueError("proposals must be given for auxiliary encoder heads, got None")
    predictions = []
    for layer, rows in enumerate(encoded.layer_rows):
        head, grid = heads.encoder(layer), proposals.grid
        box_logits, candidates = grid.box_logits, grid.is_proposal
        if selection is not None:
            kept = selection.for_layer(layer)
            box_logits, candidates = kept.gather(box_logits), kept.gather(candidates)
            candidates = candidates & kept.own_rows()
        boxes = head.boxes_from_logits(rows, box_logits)
        predictions.append(Predictions(head.logits(rows), boxes, candidates))
    return tuple(predictions)
