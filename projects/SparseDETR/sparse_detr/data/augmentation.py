"""Geometric augmentations of the released training recipe, as Detectron2 augmentations.

Role in the flow: between the image file and the mapper's tensors. All randomness comes from numpy's
global generator, as in Detectron2's own augmentations; `seeding.py` seeds it per sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import CropTransform, HFlipTransform, NoOpTransform, Transform
from PIL import Image


def resized_shape(
    height: int, width: int, shorter: int, longest: int | None = None
) -> tuple[int, int]:
    """Gives the size of an image after a resize of its shorter side, with the released rounding.

    The longer side is truncated, not rounded as in Detectron2, so sizes can differ from
    Detectron2's by one pixel. As `shorter` is itself rounded when `longest` limits it, the longer
    side can exceed `longest` by a pixel or two on elongated images, as in the release.

    Args:
        height: image height, pixels.
        width: image width, pixels.
        shorter: wanted length of the shorter side, pixels.
        longest: limit of the longer side, pixels; None for no limit.

    Returns:
        New (height, width), each at least 1.

    Source: resize of the released data pipeline.
    """
    short_now, long_now = min(height, width), max(height, width)
    if longest is not None and long_now / short_now * shorter > longest:
        shorter = max(1, round(longest * short_now / long_now))
    if width < height:
        return max(1, int(shorter * height / width)), shorter
    return shorter, max(1, int(shorter * width / height))


class PilResizeTransform(Transform):
    """Resize with PIL's antialiased bilinear filter; coordinates scale by the exact size ratio.

    Args:
        height: input height, pixels.
        width: input width, pixels.
        new_height: output height, pixels.
        new_width: output width, pixels.
    """

    def __init__(self, height: int, width: int, new_height: int, new_width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.new_height, self.new_width = new_height, new_width

    def _resize(self, array: npt.NDArray[Any], method: Image.Resampling) -> npt.NDArray[Any]:
        if array.shape[:2] == (self.new_height, self.new_width):
            return array
        size = (self.new_width, self.new_height)
        squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
        resized = np.asarray(Image.fromarray(squeezed).resize(size, method))
        return resized[..., None] if squeezed.ndim != array.ndim else resized

    def apply_image(self, img: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Gives the resized image; `img` is (h, w) or (h, w, 1 or 3), uint8."""
        return self._resize(np.ascontiguousarray(img), Image.Resampling.BILINEAR)

    def apply_coords(self, coords: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Gives the scaled (x, y) rows of `coords` (n, 2), in pixels."""
        coords[:, 0] = coords[:, 0] * (self.new_width / self.width)
        coords[:, 1] = coords[:, 1] * (self.new_height / self.height)
        return coords

    def apply_segmentation(self, segmentation: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Gives the label map (h, w) resized by nearest neighbour."""
        return self._resize(np.ascontiguousarray(segmentation), Image.Resampling.NEAREST)

    def inverse(self) -> PilResizeTransform:
        """Gives the transform back to the input size."""
        return PilResizeTransform(self.new_height, self.new_width, self.height, self.width)


def _positive_sizes(name: str, values: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (values,) if isinstance(values, int) else tuple(int(v) for v in values)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"{name}: got {values!r}, expected one or more positive lengths in pixels")
    return sizes


class RandomHorizontalFlip(Augmentation):
    """Mirrors the image with the given probability.

    Args:
        probability: in [0, 1].
    """

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability: got {probability}, expected a number in [0, 1]")
        self.probability = probability

    def get_transform(self, image: npt.NDArray[Any]) -> Transform:
        """Gives the flip of this sample, for an image (h, w, c)."""
        flip = np.random.random() < self.probability
        return HFlipTransform(image.shape[1]) if flip else NoOpTransform()


class ResizeShorterSide(Augmentation):
    """Resizes so that the shorter side is one of some lengths, drawn uniformly.

    Args:
        short_edge_lengths: one length or a choice of lengths, pixels.
        max_size: limit of the longer side, pixels; None for no limit.
    """

    def __init__(
        self, short_edge_lengths: int | Sequence[int], max_size: int | None = None
    ) -> None:
        super().__init__()
        self.short_edge_lengths = _positive_sizes("short_edge_lengths", short_edge_lengths)
        if max_size is not None and max_size < 1:
            raise ValueError(f"max_size: got {max_size}, expected a positive length or None")
        self.max_size = max_size

    def get_transform(self, image: npt.NDArray[Any]) -> Transform:
        """Gives the resize of this sample, for an image (h, w, c)."""
        height, width = image.shape[:2]
        choice = np.random.randint(len(self.short_edge_lengths))
        new_size = resized_shape(height, width, self.short_edge_lengths[choice], self.max_size)
        return PilResizeTransform(height, width, *new_size)


class RandomSizeCrop(Augmentation):
    """Crops a window whose width and height are drawn independently and uniformly.

    Each side comes from [smallest, min(image side, largest)], both ends included; a side shorter
    than `smallest` is kept whole.

    Args:
        crop_size: (smallest, largest) side, pixels.

    Source: random size crop of the released data pipeline.
    """

    def __init__(self, crop_size: Sequence[int] = (384, 600)) -> None:
        super().__init__()
        sizes = _positive_sizes("crop_size", crop_size)
        if len(sizes) != 2 or sizes[0] > sizes[1]:
            raise ValueError(f"crop_size: got {crop_size!r}, expected (smallest, largest)")
        self.crop_size = sizes

    def get_transform(self, image: npt.NDArray[Any]) -> Transform:
        """Gives the crop of this sample, for an image (h, w, c)."""
        smallest, largest = self.crop_size
        height, width = image.shape[:2]
        crop_width = np.random.randint(min(smallest, width), min(width, largest) + 1)
        crop_height = np.random.randint(min(smallest, height), min(height, largest) + 1)
        left = np.random.randint(width - crop_width + 1)
        top = np.random.randint(height - crop_height + 1)
        return CropTransform(left, top, crop_width, crop_height, width, height)
