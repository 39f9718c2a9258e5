"""What decoders have in common, whatever their cross-attention: layers, refinement, predictions.

Role in the flow: query selection -> **decoder** -> heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..heads import DetectionHeads
from ..layers.activation_checkpoint import run_layer
from ..layers.dropout import Dropout
from ..layers.feed_forward import FeedForward
from ..layers.initialization import xavier_matrices_
from ..layers.residual import add_update
from ..structures import (
    DecoderOutput,
    DecoderQueries,
    FeatureTokens,
    MemoryTokens,
    Predictions,
    Sampling,
)
from .reference_position import ReferencePosition


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each with residual and post-norm.

    A layer is called as ``layer(content, position, *surroundings, visible, with_sampling)``,
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
        """Queries (B, Q, C) after they attended to each other, with residual and norm; as below."""
        attended = self.read_queries(content, position, query_mask)
        output: Tensor = self.norm2(add_update(content, self.dropout2(attended)))
        return output

    def read_queries(self, content: Tensor, position: Tensor, query_mask: Tensor | None) -> Tensor:
        """What the queries (B, Q, C) read from each other.

        Args:
            content: (B, Q, C).
            position: (B, Q, C).
            query_mask: (B, Q) bool, False on rows that no query may see; or (B or 1, Q, Q) bool,
                False where the query of a row may not see that of a column; None if all may be
                seen.
        """
        query = content + position
        # With dropout, torch's attention keeps three (B, H, Q, Q) maps on a CPU; they are cheaper
        # computed again than kept.
        recompute = self.training and self.self_attn.dropout > 0 and query.device.type == "cpu"
        attended: Tensor = run_layer(
            self.self_attn,
            recompute and torch.is_grad_enabled(),
            query,
            query,
            content,
            need_weights=False,
            **self._unseen(query_mask),
        )[0]
        return attended

    def _unseen(self, query_mask: Tensor | None) -> dict[str, Tensor]:
        """What torch's attention leaves out, as its arguments: rows, or pairs of rows."""
        if query_mask is None:
            return {}
        if query_mask.dim() == 2:
            return {"key_padding_mask": ~query_mask}
        if len(query_mask) == 1:
            return {"attn_mask": ~query_mask[0]}
        heads = self.self_attn.num_heads
        return {"attn_mask": (~query_mask).repeat_interleave(heads, dim=0)}

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
        norm: Norm in front of the heads that all layers share; None for none.
        reference_position: Makes the queries' positions in every layer from its references; None
            takes those that come with the queries.
        look_forward_twice: The boxes of a layer start from those of the layer before *with*
            gradient, so that a layer also learns from the boxes of the next one. What the next
            layer reads still carries none.

    Attributes:
        needs_references: Whether the layers read reference points.

    Source: Deformable DETR, section 4.2 and appendix A.4. The released code runs each box head
        twice, for the refinement and for the output; here one run serves both. DINO, section 3.5
        (look forward twice): there both runs differ, since the released code refines by the
        queries in front of the shared norm.
    """

    needs_references: bool

    def __init__(
        self,
        layers: Iterable[DecoderLayer],
        refine_boxes: bool,
        checkpoint_activations: bool,
        norm: nn.Module | None = None,
        reference_position: ReferencePosition | None = None,
        look_forward_twice: bool = False,
    ) -> None:
        super().__init__()
        if look_forward_twice and not refine_boxes:
            raise ValueError(
                "refine_boxes must be True for look_forward_twice: there is nothing to look "
                "forward to without refinement"
            )
        self.layers = nn.ModuleList(layers)
        self.refine_boxes = refine_boxes
        self.checkpoint_activations = checkpoint_activations
        self.norm = norm
        self.reference_position = reference_position
        self.look_forward_twice = look_forward_twice

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

    def with_looks(
        self,
        predictions: tuple[Predictions, ...],
        looks: Sequence[Any],
        query_mask: Tensor | None,
    ) -> DecoderOutput:
        """The output, from predictions and from where the layers looked, if that was asked for.

        This one is for cross-attention that has a map.

        Args:
            predictions: Of the layers.
            looks: The (B, Q, N) map of each layer; rows that are no queries weigh nothing.
            query_mask: (B, Q) bool, False on such rows; None if there are none.
        """
        if query_mask is not None:
            looks = [look.masked_fill(~query_mask[..., None], 0) for look in looks]
        return DecoderOutput(predictions, attention_maps=tuple(looks))

    def starting_references(self, queries: DecoderQueries) -> Tensor | None:
        """(B, Q, 2 or 4) what the first layer's queries start from, normalised; or None."""
        return queries.reference_points

    def for_heads(self, content: Tensor) -> Tensor:
        """The queries (B, Q, C) of a layer as the heads read them."""
        return content if self.norm is None else cast(Tensor, self.norm(content))

    def _position(
        self, queries: DecoderQueries, reference: Tensor | None, tokens: FeatureTokens
    ) -> Tensor:
        """(B, Q, C) position of the queries in a layer."""
        if self.reference_position is None:
            assert queries.position is not None, "the detector checks that the queries have one"
            return queries.position
        assert reference is not None, "the detector checks that the queries have references"
        dtype = queries.content.dtype
        return cast(Tensor, self.reference_position(reference, tokens.valid_ratios, dtype))

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
        content, reference = queries.content, self.starting_references(queries)
        start = reference  # where the boxes start from: the reference, or itself with gradient
        view, visible = self.shared_view(memory, tokens), queries.visible()
        predictions: list[Predictions] = []
        looks: list[Any] = []
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            content, look = run_layer(
                layer,
                self.checkpoint_activations and self.training,
                content,
                self._position(queries, reference, tokens),
                *self.surroundings(view, reference),
                visible,
                with_sampling,
            )
            if look is not None:
                looks.append(tokens.spread(look) if isinstance(tokens, MemoryTokens) else look)
            head, boxes = heads.decoder(index), None
            if all_layers or index == last:
                features = self.for_heads(content)
                boxes, logits = head.boxes(features, start), head.logits(features)
                predictions.append(Predictions(logits, boxes, queries.query_mask))
            if not self.refine_boxes or index == last:
                continue
            if self.look_forward_twice:
                boxes = head.boxes(content, reference)
            elif boxes is None:
                boxes = head.boxes(self.for_heads(content), reference)
            reference = boxes.detach()
            start = boxes if self.look_forward_twice else reference
        return self._output(predictions, looks, queries)

    def _output(
        self, predictions: Sequence[Predictions], looks: Sequence[Any], queries: DecoderQueries
    ) -> DecoderOutput:
        """The output, with what the denoising queries predicted apart."""
        first, mask = queries.num_denoising, queries.query_mask
        matching = tuple(p.rows(slice(first, None)) if first else p for p in predictions)
        if first:
            mask = None if mask is None else mask[:, first:]
            looks = [k.from_row(first) if isinstance(k, Sampling) else k[:, first:] for k in looks]
        output = self.with_looks(matching, looks, mask)
        if queries.denoising is None:
            return output
        return replace(output, denoising=tuple(p.rows(slice(first)) for p in predictions))
