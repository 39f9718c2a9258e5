"""A sequence that stands in for the tokens: what the decoder reads where that is not they."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .feature_maps import Size


@dataclass(frozen=True, eq=False)
class MemoryTokens:
    """Rows that encoder and decoder read in place of the tokens, where a part makes others.

    It answers to the names of :class:`FeatureTokens` that attention over any sequence needs.

    Attributes:
        features: (B, K, C) without position.
        position: (B, K, C).
        spread: Gives what each of the N tokens received, (B, Q, N), from what the rows did,
            (B, Q, K); without gradient.
        padding_mask: (B, K) bool, True on rows that nobody may read; None if all may be read.
        spatial_shapes: L pairs (H_l, W_l) where the rows are the cells of maps, level after level;
            None where they lie in no order.
        image_sizes: (height, width) of each image, pixels; None where it is not known.
        strides: Pixels from one cell of a level to the next, L of them; None where it is not
            known.
    """

    features: Tensor
    position: Tensor
    spread: Callable[[Tensor], Tensor]
    padding_mask: Tensor | None = None
    spatial_shapes: tuple[Size, ...] | None = None
    image_sizes: tuple[Size, ...] | None = None
    strides: tuple[int, ...] | None = None

    @property
    def key_padding_mask(self) -> Tensor | None:
        """``padding_mask``, by the name that tokens have for it."""
        return self.padding_mask
