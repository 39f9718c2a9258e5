"""SMCA's decoder: cross-attention that starts out near a place, by head and by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..layers.gaussian_attention import GaussianAttention
from ..structures import DecoderQueries, FeatureTokens, Size
from .decoder_stack import Decoder, DecoderLayer
from .gaussian_prior import GaussianPriorNetwork, InitialCentres, PriorForm, image_extents


@dataclass(frozen=True)
class MemoryView:
    """What all layers read.

    Attributes:
        keys: (B, N, C) memory with position.
        memory: (B, N, C), the values.
        padding_mask: (B, N) bool, True on padding; None without padding.
        extents: For each level (B, 1, 2) width and height of the images in cells.
        spatial_shapes: L pairs (H_l, W_l).
    """

    keys: Tensor
    memory: Tensor
    padding_mask: Tensor | None
    extents: tuple[Tensor, ...]
    spatial_shapes: tuple[Size, ...]


class SmcaDecoderLayer(DecoderLayer):
    """Self-attention, cross-attention with a Gaussian prior, and feed-forward network, post-norm.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        feedforward_dim: Width of the feed-forward network.
        dropout: Probability, in training; also on the attention weights.
        form: Of the prior.
        alpha_of_first_image: See :class:`GaussianPriorNetwork`.

    Source: SMCA, sections 3.2 to 3.4.
    """

    cross_attn: GaussianAttention

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float,
        form: PriorForm,
        alpha_of_first_image: bool,
    ) -> None:
        super().__init__(
            nn.MultiheadAttention(hidden_dim, num_heads, dropout, batch_first=True),
            GaussianAttention(hidden_dim, num_heads, dropout),
            hidden_dim,
            feedforward_dim,
            dropout,
        )
        self.prior = GaussianPriorNetwork(hidden_dim, num_heads, form, alpha_of_first_image)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        view: MemoryView,
        centres: Tensor,
        visible: Tensor | None = None,
        with_map: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Updated queries, and their attention map if that is asked for.

        Args:
            content: (B, Q, C).
            position: (B, Q, C).
            view: The memory.
            centres: (B, Q, 2) normalised.
            visible: Which queries may be seen, see :meth:`DecoderLayer.among_queries`.
            with_map: Give the (B, Q, N) map of the cross-attention.
        """
        priors, level_weights = self.prior(content + position, centres, view.extents)
        content = self.among_queries(content, position, visible)
        attended, attention_map = self.cross_attn(
            content + position,
            view.keys,
            view.memory,
            priors,
            view.spatial_shapes,
            level_weights,
            view.padding_mask,
            with_map,
        )
        return self.updated(content, attended), attention_map


class SmcaDecoder(Decoder):
    """A stack of layers with Gaussian priors, and one norm in front of the heads.

    The centre of a query is read once, as it enters the decoder; the priors of all layers and all
    boxes start from it.

    Args:
        hidden_dim: Channels C.
        num_heads: Heads H.
        num_layers: Layers D.
        feedforward_dim: Width of the feed-forward networks.
        dropout: Probability, in training; also on the attention weights.
        prior_scale: See :class:`PriorForm`.
        heads_share_prior: See :class:`PriorForm`.
        prior_smooth: See :class:`PriorForm`.
        level_factors: See :class:`PriorForm`; one of each level of the memory.
        select_scales: See :class:`PriorForm`.
        alpha_of_first_image: See :class:`GaussianPriorNetwork`.
        checkpoint_activations: Recompute activations in the backward pass to save memory.

    Source: SMCA, section 3.
    """

    needs_references = False

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_layers: int = 6,
        feedforward_dim: int = 2048,
        dropout: float = 0.1,
        prior_scale: str = "axes",
        heads_share_prior: bool = False,
        prior_smooth: float = 8.0,
        level_factors: Sequence[float] = (1.0,),
        select_scales: bool = True,
        alpha_of_first_image: bool = False,
        checkpoint_activations: bool = False,
    ) -> None:
        factors = tuple(level_factors)
        form = PriorForm(prior_scale, heads_share_prior, prior_smooth, factors, select_scales)
        layers = [
            SmcaDecoderLayer(
                hidden_dim, num_heads, feedforward_dim, dropout, form, alpha_of_first_image
            )
            for _ in range(num_layers)
        ]
        super().__init__(layers, False, checkpoint_activations, nn.LayerNorm(hidden_dim))
        self.initial_centres = InitialCentres(hidden_dim)
        self.num_levels = len(form.level_factors)

    def starting_references(self, queries: DecoderQueries) -> Tensor:
        """(B, Q, 2) centres; read through the norm that the first layer's prior has."""
        first = self.layers[0]
        assert isinstance(first, SmcaDecoderLayer) and queries.position is not None
        features = first.prior.features(queries.content + queries.position)
        centres: Tensor = self.initial_centres(features)
        return centres

    def shared_view(self, memory: Tensor, tokens: FeatureTokens) -> MemoryView:
        """Keys, values, padding, and where the keys lie."""
        extents = image_extents(tokens, self.num_levels)
        keys = memory + tokens.position
        return MemoryView(keys, memory, tokens.key_padding_mask, extents, tokens.spatial_shapes)

    def surroundings(self, view: MemoryView, reference: Tensor | None) -> tuple[Any, ...]:
        """The memory and the queries' centres."""
        return view, reference
