"""The encoder with dual attention: objects among each other first, then deformable attention.

Role in the flow: token selection -> **encoder** -> query selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..heads import DetectionHeads
from ..layers.dense_attention import DenseAttention
from ..layers.precision import at_least_float32
from ..layers.residual import add_update
from ..query_selection.encoder_proposals import top_tokens
from ..structures import FeatureTokens, KeptTokens, Size, TokenSelection
from .deformable_encoder import DeformableEncoder, DeformableEncoderLayer


class DualAttentionEncoderLayer(DeformableEncoderLayer):
    """Dense attention among the object tokens, then what a deformable layer does with all rows.

    Arguments as of :class:`DeformableEncoderLayer`.

    Source: Focus-DETR, section 3.3 (dual attention).
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int = 4,
        feedforward_dim: int = 2048,
        dropout: float = 0.0,
        project_after_sampling: bool | None = None,
    ) -> None:
        super().__init__(
            hidden_dim,
            num_heads,
            num_levels,
            num_points,
            feedforward_dim,
            dropout,
            project_after_sampling,
        )
        self.object_attn = DenseAttention(hidden_dim, num_heads, dropout)
        self.object_norm = nn.LayerNorm(hidden_dim)

    def forward(
        self,
        rows: Tensor,
        memory: Tensor,
        position: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[Size],
        valid_sizes: Tensor | None,
        objects: KeptTokens | None = None,
    ) -> Tensor:
        """Updated rows.

        Args:
            rows: (B, K, C) tokens to update.
            memory: (B, N, C) tokens that give the values of the deformable attention.
            position: (B, K, C).
            reference_points: (B, K, L, 2).
            spatial_shapes: L pairs (H_l, W_l).
            valid_sizes: (B, L, 2) rows and columns that the images cover, or None without padding.
            objects: Which of the K rows are the object tokens; None for none.
        """
        if objects is not None:
            rows = objects.scatter(rows, self.updated_objects(rows, position, objects))
        return super().forward(
            rows, memory, position, reference_points, spatial_shapes, valid_sizes
        )

    def updated_objects(self, rows: Tensor, position: Tensor, objects: KeptTokens) -> Tensor:
        """(B, O, C) object tokens after the attention among each other; see :meth:`forward`."""
        values = objects.gather(rows)
        query = values + objects.gather(position)
        surplus = ~objects.own_rows() if objects.has_surplus else None
        attended, _ = self.object_attn(query, query, values, surplus)
        output: Tensor = self.object_norm(add_update(values, self.dropout(attended)))
        return output


class DualAttentionEncoder(DeformableEncoder):
    """A stack of layers with dual attention; works only with a token selection.

    In each layer the kept tokens with the highest multi-category score are its objects: the
    product of a token's foreground score and its best class score, which the class head of the
    first stage gives for the token as the layer finds it. Scores and choice have no gradient.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H, of both attentions.
        num_levels: Levels L.
        num_layers: Layers E.
        num_points: Points P per head and level.
        feedforward_dim: Width of the feed-forward networks.
        dropout: Probability, in training.
        checkpoint_activations: Recompute activations in the backward pass to save memory.
        project_after_sampling: See :class:`MultiScaleDeformableAttention`.
        num_objects: Object tokens of an image at most; it has no more than it keeps.
        update_values: False reads the values of the deformable attention from the tokens as they
            entered the encoder, as released; released weights are trained so. True reads them from
            the tokens as the layers before left them, the paper's algorithm 1.
        multiply_probabilities: False multiplies logits, as released; of two negative ones the
            product is positive. True multiplies probabilities.
        surplus_attends: False leaves rows that only fill an image up to the batch's largest count
            out of the objects. True is the released behaviour.

    Source: Focus-DETR, sections 3.3 and 3.4, algorithm 1; released code, which publishes all
        results with raw values and the product of logits.
    """

    layer_type = DualAttentionEncoderLayer

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_levels: int,
        num_layers: int = 6,
        num_points: int = 4,
        feedforward_dim: int = 2048,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
        project_after_sampling: bool | None = None,
        num_objects: int = 300,
        update_values: bool = False,
        multiply_probabilities: bool = False,
        surplus_attends: bool = False,
    ) -> None:
        super().__init__(
            hidden_dim,
            num_heads,
            num_levels,
            num_layers,
            num_points,
            feedforward_dim,
            dropout,
            checkpoint_activations,
            project_after_sampling,
        )
        if num_objects < 1:
            raise ValueError(f"num_objects must be at least 1, got {num_objects}")
        self.num_objects = num_objects
        self.update_values = update_values
        self.multiply_probabilities = multiply_probabilities
        self.surplus_attends = surplus_attends

    def values(self, memory: Tensor, tokens: FeatureTokens) -> Tensor:
        """See :meth:`Encoder.values`."""
        return memory if self.update_values else tokens.features

    def beside(
        self,
        rows: Tensor,
        kept: KeptTokens | None,
        selection: TokenSelection | None,
        heads: DetectionHeads | None,
    ) -> tuple[Any, ...]:
        """The object tokens among the rows; see :meth:`Encoder.beside`.

        Raises:
            ValueError: Scores or heads are missing.
        """
        if kept is None or selection is None or selection.token_scores is None or heads is None:
            raise ValueError(
                "a DualAttentionEncoder must be given a selection with token_scores and the "
                "detection heads, got none"
            )
        with torch.no_grad():
            scores = self.multi_category_scores(
                kept.gather(selection.token_scores), heads.first_stage().logits(rows).amax(-1)
            )
            return (self._objects(scores, kept),)

    def multi_category_scores(self, foreground: Tensor, category: Tensor) -> Tensor:
        """The scores that object tokens are chosen by.

        Args:
            foreground: (B, K) logits.
            category: (B, K) best class logits.

        Returns:
            (B, K).
        """
        dtype = at_least_float32(category.dtype)
        foreground, category = foreground.to(dtype), category.to(dtype)
        if self.multiply_probabilities:
            return foreground.sigmoid() * category.sigmoid()
        return foreground * category

    def _objects(self, scores: Tensor, kept: KeptTokens) -> KeptTokens:
        """The best of the kept rows, as rows of rows."""
        count = min(self.num_objects, scores.shape[1])
        if self.surplus_attends:
            return KeptTokens(top_tokens(scores, count), (count,) * len(scores))
        if kept.has_surplus:
            scores = scores.masked_fill(~kept.own_rows(), float("-inf"))
        own = tuple(min(count, number) for number in kept.kept_counts)
        return KeptTokens(top_tokens(scores, count), own)
