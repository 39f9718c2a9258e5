"""What follows from the sizes of the levels and of the images alone.

Role in the flow: made once per shape by the position embedding, carried by the tokens, read by
token selection, encoder, query selection and decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from .feature_maps import Size
from .shape_cache import constant_tensors

T = TypeVar("T")


class _Constant(Generic[T]):
    """An attribute that is computed when first asked for, as tensors of no special mode.

    Args:
        make: Gives the value from the owner, which has a dictionary ``made``.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, owner: TokenGeometry, kind: type[TokenGeometry] | None = None) -> T:
        if self._name in owner.made:
            kept: T = owner.made[self._name]
            return kept
        with constant_tensors():
            value = self._make(owner)
        if not torch.compiler.is_compiling():
            owner.made[self._name] = value
        return value


@dataclass(frozen=True, eq=False)
class TokenGeometry:
    """Where the tokens of a batch lie. Tensors are constants: made when first asked for, then kept.

    Attributes:
        spatial_shapes: L pairs (H_l, W_l).
        covered: For each of the B images the L pairs (rows, columns) that it covers.
        device: Of all tensors.
        dtype: Of coordinates, float32 or more.
        made: The constants that were asked for so far, by name.
    """

    spatial_shapes: tuple[Size, ...]
    covered: tuple[tuple[Size, ...], ...]
    device: torch.device
    dtype: torch.dtype
    made: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def distinct(self) -> tuple[tuple[Size, ...], ...]:
        """``covered`` of one image where all are alike, so that nothing is computed per image."""
        return self.covered[:1] if len(set(self.covered)) == 1 else self.covered

    @property
    def valid_counts(self) -> tuple[int, ...]:
        """B numbers of tokens that are not padding, on the host."""
        return tuple(sum(h * w for h, w in image) for image in self.covered)

    @property
    def is_padded(self) -> bool:
        """Whether any token of the batch is padding."""
        return any(image != self.spatial_shapes for image in self.covered)

    @property
    def level_start_index(self) -> tuple[int, ...]:
        """Index of the first token of each level."""
        starts = [0]
        for height, width in self.spatial_shapes[:-1]:
            starts.append(starts[-1] + height * width)
        return tuple(starts)

    @_Constant
    def valid_sizes(self) -> Tensor:
        """(B, L, 2) int64 rows and columns that each image covers."""
        return torch.tensor(self.covered, device=self.device)

    @_Constant
    def valid_ratios(self) -> Tensor:
        """(B, L, 2) share of each level that the image covers, order (x, y)."""
        shapes = torch.tensor(self.spatial_shapes, dtype=self.dtype, device=self.device)
        return (self.valid_sizes / shapes).flip(-1)

    @_Constant
    def cells(self) -> tuple[Tensor, Tensor, Tensor]:
        """(N,) int64 each: row and column of a token within its level, and the level."""
        rows, columns, levels = [], [], []
        for level, (height, width) in enumerate(self.spatial_shapes):
            cell = torch.arange(height * width, device=self.device)
            rows.append(cell // width)
            columns.append(cell % width)
            levels.append(torch.full_like(cell, level))
        return torch.cat(rows), torch.cat(columns), torch.cat(levels)

    @_Constant
    def padding_mask(self) -> Tensor:
        """(B, N) bool, True on padding."""
        rows, columns, levels = self.cells
        if not self.is_padded:
            return torch.zeros_like(rows, dtype=torch.bool).expand(len(self.covered), -1)
        limits = self._per_token_sizes(levels)
        mask = (rows >= limits[..., 0]) | (columns >= limits[..., 1])
        return mask.expand(len(self.covered), -1)

    @_Constant
    def centres(self) -> Tensor:
        """(B, N, 2) centre of each token, order (x, y), in units of what its image covers."""
        rows, columns, levels = self.cells
        cells = torch.stack([columns, rows], dim=-1).to(self.dtype) + 0.5
        extent = self._per_token_sizes(levels).flip(-1)
        return (cells / extent).expand(len(self.covered), -1, -1)

    @_Constant
    def reference_points(self) -> Tensor:
        """(B, N, L, 2) centre of each token on each level, order (x, y); see FeatureTokens."""
        return self.centres[:, :, None] * self.valid_ratios[:, None]

    @_Constant
    def proposals(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Box proposals of the tokens.

        Returns:
            box_logits (B, N, 4), logits of cxcywh, +inf where the token is no proposal;
            is_proposal (B, N) bool; others (M,) int64, the tokens that are none among the (B * N)
            of all images, or None in a trace, where their number cannot be known.
        """
        levels = self.cells[2]
        size = (0.05 * 2.0 ** levels.to(self.dtype))[None, :, None]
        centres = self.centres[: len(self.distinct)]
        boxes = torch.cat([centres, size.expand(len(centres), -1, 2)], dim=-1)
        inside = ((boxes > 0.01) & (boxes < 0.99)).all(-1)
        inside = inside & ~self.padding_mask[: len(centres)]
        # Masked before the logarithm: a coordinate above 1 would otherwise pass as NaN.
        boxes = boxes.masked_fill(~inside[..., None], 0.5)
        logits = torch.log(boxes / (1 - boxes))
        logits = logits.masked_fill(~inside[..., None], float("inf"))
        batch = len(self.covered)
        logits, inside = logits.expand(batch, -1, -1), inside.expand(batch, -1)
        if torch.compiler.is_compiling():
            return logits, inside, None
        return logits, inside, (~inside).flatten().nonzero()[:, 0]

    def _per_token_sizes(self, levels: Tensor) -> Tensor:
        """(B or 1, N, 2) rows and columns that an image covers of each token's level."""
        return self.valid_sizes[: len(self.distinct)][:, levels]
