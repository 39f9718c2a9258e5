"""Feature maps of a batch with the part of each map that its image really covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def valid_cells(image_length: int, padded_length: int, cells: int) -> int:
    """Number of cells of a level that the image covers along one axis.

    Cell ``i`` belongs to the image iff pixel ``floor(i * padded_length / cells)`` of the padded
    image does, which is how a nearest resize of the image's padding mask marks it.

    Args:
        image_length: Height or width of the image, pixels.
        padded_length: The same of the padded image, pixels.
        cells: Cells of the level along that axis.

    Returns:
        Count between 1 and ``cells``.

    Source: released code (nearest interpolation of the mask); in general this is not
        ``ceil(image_length / stride)``.
    """
    return min(cells, -(-image_length * cells // padded_length))


def _valid_size(image: Size, padded: Size, cells: Size) -> Size:
    """Rows and columns of :func:`valid_cells`."""
    rows, columns = (valid_cells(*lengths) for lengths in zip(image, padded, cells, strict=True))
    return rows, columns


@dataclass(frozen=True)
class FeatureMaps:
    """Projected feature maps, one per level, padded to a common size at the bottom and right.

    Attributes:
        maps: L tensors (B, C, H_l, W_l).
        valid_sizes: For each of the B images the L pairs (rows, columns) that the image covers,
            always a rectangle at the top-left corner. Known on the host: nothing has to wait for
            the device to learn how many tokens are real.
        image_sizes: B pairs (height, width) of the images as the network sees them, before
            padding, pixels; None where the maps come from no images.
        strides: Pixels from one cell of a level to the next, L of them; None where the backbone
            does not tell.
    """

    maps: tuple[Tensor, ...]
    valid_sizes: tuple[tuple[Size, ...], ...]
    image_sizes: tuple[Size, ...] | None = None
    strides: tuple[int, ...] | None = None

    @property
    def spatial_shapes(self) -> tuple[Size, ...]:
        """(H_l, W_l) of each level."""
        return tuple((int(m.shape[-2]), int(m.shape[-1])) for m in self.maps)

    @staticmethod
    def of_padded_images(
        maps: Sequence[Tensor],
        image_sizes: Sequence[Size],
        padded_size: Size,
        strides: tuple[int, ...] | None = None,
        derived_levels: int = 0,
    ) -> FeatureMaps:
        """Feature maps of images that were padded to one size before the backbone.

        Args:
            maps: L tensors (B, C, H_l, W_l).
            image_sizes: B pairs (height, width), pixels.
            padded_size: (height, width) of the padded images, pixels.
            strides: Of the L levels, pixels, where they are known.
            derived_levels: How many of the last levels have their cover read from the level
                before instead of from the image.
        """
        sizes = [(int(m.shape[-2]), int(m.shape[-1])) for m in maps]
        own = len(sizes) - derived_levels
        valid = []
        for image in image_sizes:
            covered = [_valid_size(image, padded_size, size) for size in sizes[:own]]
            for before, size in zip(sizes[own - 1 :], sizes[own:], strict=False):
                covered.append(_valid_size(covered[-1], before, size))
            valid.append(tuple(covered))
        return FeatureMaps(tuple(maps), tuple(valid), tuple(image_sizes), strides)

    @staticmethod
    def merge(parts: Sequence[FeatureMaps], positions: Sequence[Sequence[int]]) -> FeatureMaps:
        """One batch from parts that were computed apart.

        Args:
            parts: Feature maps of disjoint groups of images.
            positions: For each part, the positions of its images in the whole batch.
        """
        if len(parts) == 1 and list(positions[0]) == sorted(positions[0]):
            return parts[0]
        order = [p for group in positions for p in group]
        back = sorted(range(len(order)), key=order.__getitem__)
        merged = []
        for level in zip(*(part.maps for part in parts), strict=True):
            height, width = (max(m.shape[d] for m in level) for d in (-2, -1))
            images = [image for m in level for image in _padded(m, height, width)]
            merged.append(torch.stack([images[i] for i in back]))
        valid = [v for part in parts for v in part.valid_sizes]
        sizes = [s for part in parts for s in part.image_sizes or ()]
        return FeatureMaps(
            tuple(merged),
            tuple(valid[i] for i in back),
            tuple(sizes[i] for i in back) if len(sizes) == len(valid) else None,
            parts[0].strides,
        )


def _padded(maps: Tensor, height: int, width: int) -> Tensor:
    if maps.shape[-2:] == (height, width):
        return maps
    return F.pad(maps, (0, width - maps.shape[-1], 0, height - maps.shape[-2]))
