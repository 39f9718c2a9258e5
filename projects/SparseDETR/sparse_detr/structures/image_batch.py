"""The images of a batch, normalised, and how they are padded for the backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .feature_maps import Size


@dataclass(frozen=True)
class PaddedImages:
    """Images of one padded size.

    Attributes:
        pixels: (b, 3, H, W), zero (the mean colour) at the bottom and right of smaller images.
        image_sizes: b pairs (height, width), pixels, before padding.
        positions: Their positions in the whole batch.
    """

    pixels: Tensor
    image_sizes: tuple[Size, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class ImageBatch:
    """Images of a batch before padding.

    Attributes:
        images: B tensors (3, height, width), normalised.
        original_sizes: B pairs (height, width), pixels, that detections are scaled to.
        image_ids: B ids as the data set gives them.
    """

    images: tuple[Tensor, ...]
    original_sizes: tuple[Size, ...]
    image_ids: tuple[object, ...]

    @property
    def image_sizes(self) -> tuple[Size, ...]:
        """(height, width) of each image, pixels, as the network sees it."""
        return tuple((int(i.shape[-2]), int(i.shape[-1])) for i in self.images)

    def groups(self, together: bool, size_divisibility: int = 0) -> Iterator[PaddedImages]:
        """Images to run the backbone on, at once or group by group.

        Args:
            together: One group padded to the largest image. Otherwise only images of equal size
                share a group, so that no convolution and no norm ever sees another image's
                padding.
            size_divisibility: Round padded sizes up to a multiple, for backbones that ask for it.
        """
        sizes = self.image_sizes
        by_size: dict[Size | None, list[int]] = {}
        for position, size in enumerate(sizes):
            by_size.setdefault(None if together else size, []).append(position)
        for positions in by_size.values():
            height, width = (
                _round_up(max(sizes[p][axis] for p in positions), size_divisibility)
                for axis in (0, 1)
            )
            yield PaddedImages(
                pixels=_stacked([_pad(self.images[p], height, width) for p in positions]),
                image_sizes=tuple(sizes[p] for p in positions),
                positions=tuple(positions),
            )


def _round_up(length: int, multiple: int) -> int:
    return length if multiple <= 1 else -(-length // multiple) * multiple


def _stacked(images: list[Tensor]) -> Tensor:
    return images[0][None] if len(images) == 1 else torch.stack(images)


def _pad(image: Tensor, height: int, width: int) -> Tensor:
    if image.shape[-2:] == (height, width):
        return image
    return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))
