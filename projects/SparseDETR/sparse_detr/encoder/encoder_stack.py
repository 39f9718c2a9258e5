"""What encoders have in common, whatever their attention: which tokens are updated, and how often.

Role in the flow: token selection -> **encoder** -> query selection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..heads import DetectionHeads
from ..layers.activation_checkpoint import run_layer
from ..layers.dropout import Dropout
from ..layers.feed_forward import FeedForward
from ..layers.initialization import xavier_matrices_
from ..layers.rebuilt_memory import rebuilt_when_needed
from ..layers.residual import add_update
from ..structures import EncoderOutput, FeatureTokens, KeptTokens, TokenSelection


class EncoderLayer(nn.Module):
    """An attention and a feed-forward network, each with residual and post-norm.

    A layer is called as ``layer(rows, memory, *place)``: rows (B, K, C) to update, the memory
    (B, N, C) that they read, and what :meth:`Encoder.place` gives.

    Args:
        self_attn: The attention.
        hidden_dim: Channels C.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training.
    """

    def __init__(
        self, self_attn: nn.Module, hidden_dim: int, feedforward_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.self_attn = self_attn
        self.dropout = Dropout(dropout)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.ffn = FeedForward(hidden_dim, feedforward_dim, dropout)
        self.norm2 = nn.LayerNorm(hidden_dim)
        xavier_matrices_(self)

    def updated(self, rows: Tensor, attended: Tensor) -> Tensor:
        """Rows (B, K, C) from themselves and what they attended to."""
        rows = self.norm1(add_update(rows, self.dropout(attended)))
        output: Tensor = self.norm2(add_update(rows, self.ffn(rows)))
        return output


class Encoder(nn.Module, ABC):
    """A stack of encoder layers; sparse when a selection is given, dense otherwise.

    The kept tokens are the queries; *all* tokens are keys and values in every layer. Tokens that
    are not kept leave the encoder as they came.

    Args:
        layers: The layers.
        checkpoint_activations: Recompute activations in the backward pass to save memory.

    Source: Sparse DETR, section 3.2.
    """

    def __init__(self, layers: Iterable[EncoderLayer], checkpoint_activations: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.checkpoint_activations = checkpoint_activations

    @abstractmethod
    def place(self, tokens: FeatureTokens, indices: Tensor | None) -> tuple[Any, ...]:
        """What the layers have to know beside rows and memory; the same for all of them.

        Args:
            tokens: The tokens of the batch.
            indices: (B, K) tokens to update, or None for all.
        """

    def beside(
        self,
        rows: Tensor,
        kept: KeptTokens | None,
        selection: TokenSelection | None,
        heads: DetectionHeads | None,
    ) -> tuple[Any, ...]:
        """What a layer has to know about its rows; other than the place, it may change with them.

        Args:
            rows: (B, K, C) the layer's input.
            kept: The tokens that they are; None for all.
            selection: With the scores of the tokens; None where nothing is selected.
            heads: The detection heads.
        """
        return ()

    def values(self, memory: Tensor, tokens: FeatureTokens) -> Tensor:
        """(B, N, C) what a layer reads: the memory as the layers before it left it."""
        return memory

    def forward(
        self,
        tokens: FeatureTokens,
        selection: TokenSelection | None,
        num_auxiliary: int = 0,
        heads: DetectionHeads | None = None,
    ) -> EncoderOutput:
        """The memory.

        Args:
            tokens: The tokens of the batch.
            selection: Which of them to update, or None for all.
            num_auxiliary: Number of first layers whose rows an auxiliary head wants.
            heads: The detection heads, for layers that look for objects themselves.
        """
        sequence = None if selection is None else selection.sequence
        if selection is not None and sequence is not None:
            # It answers to all names that an attention over any sequence asks for.
            tokens, selection = cast(FeatureTokens, sequence), None
        memory = tokens.features
        kept: KeptTokens | None = None
        rebuild: Callable[[], Tensor] | None = None
        if selection is None:
            rows, place = memory, self.place(tokens, None)
        layer_rows: list[Tensor] = []
        recompute = self.checkpoint_activations and self.training
        for index, layer in enumerate(self.layers):
            if selection is not None and selection.for_layer(index) is not kept:
                kept, rebuild, base = selection.for_layer(index), None, memory
                writer = kept.writer(memory.shape[1])
                rows, place = kept.gather(memory), self.place(tokens, kept.kept_indices)
            with rebuilt_when_needed(memory, None if recompute else rebuild):
                beside = self.beside(rows, kept, selection, heads)
                source = self.values(memory, tokens)
                rows = run_layer(layer, recompute, rows, source, *place, *beside)
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
        return EncoderOutput(memory, tuple(layer_rows), kept if alone else None, sequence)
