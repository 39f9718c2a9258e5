"""The tokens of a batch: all cells of all levels in one sequence."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .feature_maps import Size
from .row_access import gather_rows
from .token_geometry import TokenGeometry
from .token_positions import TokenPositions


@dataclass(frozen=True)
class FeatureTokens:
    """All cells of all levels, level 0 first, row by row within a level.

    Attributes:
        features: (B, N, C) projected features without position; nobody modifies them.
        positions: Sine position plus level embedding of each token, written out on demand.
        geometry: Where the tokens lie; constants that all batches of these shapes share.
        image_sizes: (height, width) of each image, pixels, as the network saw it; None where the
            tokens come from no images.
        strides: Pixels from one cell of a level to the next, L of them; None where the backbone
            does not tell.
    """

    features: Tensor
    positions: TokenPositions
    geometry: TokenGeometry
    image_sizes: tuple[Size, ...] | None = None
    strides: tuple[int, ...] | None = None

    @property
    def position(self) -> Tensor:
        """(B, N, C) positions of all tokens, computed anew each time."""
        return self.positions.everywhere().expand(len(self.features), -1, -1)

    @property
    def padding_mask(self) -> Tensor:
        """(B, N) bool, True on padding."""
        return self.geometry.padding_mask

    @property
    def spatial_shapes(self) -> tuple[Size, ...]:
        """L pairs (H_l, W_l)."""
        return self.geometry.spatial_shapes

    @property
    def valid_sizes(self) -> Tensor:
        """(B, L, 2) int64 rows and columns that the image covers, on the features' device."""
        return self.geometry.valid_sizes

    @property
    def valid_counts(self) -> tuple[int, ...]:
        """B numbers of tokens that are not padding, on the host."""
        return self.geometry.valid_counts

    @property
    def value_extents(self) -> Tensor | None:
        """``valid_sizes`` for the values of an attention, or None where no token is padding."""
        return self.geometry.valid_sizes if self.geometry.is_padded else None

    @property
    def key_padding_mask(self) -> Tensor | None:
        """``padding_mask`` for the keys of an attention, or None where no token is padding."""
        return self.geometry.padding_mask if self.geometry.is_padded else None

    @property
    def level_start_index(self) -> tuple[int, ...]:
        """Index of the first token of each level."""
        return self.geometry.level_start_index

    @property
    def valid_ratios(self) -> Tensor:
        """(B, L, 2) share of each level that the image covers, order (x, y)."""
        return self.geometry.valid_ratios

    def reference_points(self, indices: Tensor | None = None) -> Tensor:
        """Centre of tokens on each level, for the encoder's deformable attention.

        Args:
            indices: (B, K) tokens, or None for all.

        Returns:
            (B, K or N, L, 2), order (x, y), normalised to the padded map of the target level.

        Source: Deformable DETR, appendix A.4; released code: a centre is normalised by the valid
            extent of its own level and scaled by the valid ratio of the target level.
        """
        if indices is None:
            return self.geometry.reference_points
        return gather_rows(self.geometry.centres, indices)[:, :, None] * self.valid_ratios[:, None]
