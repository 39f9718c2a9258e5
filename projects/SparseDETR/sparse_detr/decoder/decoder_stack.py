"""What decoders have in common, whatever their cross-attention: layers, refinement, predictions.

Role in the flow: query selection -> **decoder** -> heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..heads import DetectionHeads
from ..layers.activation_checkpoint import run_layer
from ..layers.dropout import Dropout
from ..layers.feed_forward import FeedForward
from ..layers.initialization import xavier_matrices_
from ..layers.residual import add_update
from ..structures import DecoderOutput, DecoderQueries, FeatureTokens, Predictions


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each with residual and post-norm.

    A layer is called as ``layer(content, position, *surroundings, query_mask, with_sampling)``,
    see :meth:`Decoder.surroundings`, and gives the updated queries and, if that is asked for,
    where they looked.

    Args:
        self_attn: The attention of the queries to each other.
        cross_attn: Their attention to the memory.
        hidden_dim: Channels C.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training.

    Source: DETR, section 3.2. The norms are numbered as in the checkpoints of Deformable DETR:
        norm2 follows the self-attention, norm1 the cross-attention; DETR numbers them in order.
    """

    def __init__(
        self,
        self_attn: nn.MultiheadAttention,
        cross_attn: nn.Module,
        hidden_dim: int,
        feedforward_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attn = self_attn
        self.dropout2 = Dropout(dropout)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.cross_attn = cross_attn
        self.dropout1 = Dropout(dropout)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.ffn = FeedForward(hidden_dim, feedforward_dim, dropout)
        self.norm3 = nn.LayerNorm(hidden_dim)
        xavier_matrices_(self)

    def among_queries(self, content: Tensor, position: Tensor, query_mask: Tensor | None) -> Tensor:
        """Queries (B, Q, C) after they attended to each other.

        Args:
            content: (B, Q, C).
            position: (B, Q, C).
            query_mask: (B, Q) bool, False on rows that no query may see; None if all may be seen.
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
        output: Tensor = self.norm2(add_update(content, self.dropout2(attended)))
        return output

    def updated(self, content: Tensor, attended: Tensor) -> Tensor:
        """Queries (B, Q, C) from themselves and what they read from the memory."""
        content = self.norm1(add_update(content, self.dropout1(attended)))
        output: Tensor = self.norm3(add_update(content, self.ffn(content)))
        return output


class Decoder(nn.Module, ABC):
    """A stack of decoder layers with optional iterative box refinement.

    Args:
        layers: The layers.
        refine_boxes: Each layer starts from the boxes of the layer before, without gradient.
        checkpoint_activations: Recompute activations in the backward pass to save memory.

    Attributes:
        needs_references: Whether the layers read reference points.

    Source: Deformable DETR, section 4.2 and appendix A.4. The released code runs each box head
        twice, for the refinement and for the output; here one run serves both.
    """

    needs_references: bool

    def __init__(
        self, layers: Iterable[DecoderLayer], refine_boxes: bool, checkpoint_activations: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.refine_boxes = refine_boxes
        self.checkpoint_activations = checkpoint_activations

    @abstractmethod
    def shared_view(self, memory: Tensor, tokens: FeatureTokens) -> Any:
        """What all layers need of memory and tokens, in the form that they need it."""

    @abstractmethod
    def surroundings(self, view: Any, reference: Tensor | None) -> tuple[Any, ...]:
        """What one layer needs beside the queries.

        Args:
            view: Of :meth:`shared_view`.
            reference: (B, Q, 2 or 4) where the layer's queries start from, normalised; or None.
        """

    @abstractmethod
    def with_looks(
        self,
        predictions: tuple[Predictions, ...],
        looks: Sequence[Any],
        query_mask: Tensor | None,
    ) -> DecoderOutput:
        """The output, from predictions and from where the layers looked, if that was asked for."""

    def for_heads(self, content: Tensor) -> Tensor:
        """The queries (B, Q, C) of a layer as the heads read them."""
        return content

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
            tokens: The tokens, for shapes, padding and positions.
            heads: The detection heads.
            all_layers: Predictions of every layer (for losses) instead of the final one only.
            with_sampling: Keep where the cross-attentions looked.
        """
        content, reference = queries.content, queries.reference_points
        view = self.shared_view(memory, tokens)
        predictions: list[Predictions] = []
        looks: list[Any] = []
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            content, look = run_layer(
                layer,
                self.checkpoint_activations and self.training,
                content,
                queries.position,
                *self.surroundings(view, reference),
                queries.query_mask,
                with_sampling,
            )
            if look is not None:
                looks.append(look)
            supervised = all_layers or index == last
            if supervised or self.refine_boxes:
                head, features = heads.decoder(index), self.for_heads(content)
                boxes = head.boxes(features, reference)
                if supervised:
                    logits = head.logits(features)
                    predictions.append(Predictions(logits, boxes, queries.query_mask))
                if self.refine_boxes:
                    reference = boxes.detach()
        return self.with_looks(tuple(predictions), looks, queries.query_mask)
