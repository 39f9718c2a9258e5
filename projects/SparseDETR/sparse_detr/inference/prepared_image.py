"""An image as the detector takes it, with what is needed to say where its detections belong.

Role in the flow: between reading an image and the batch of the detector.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data.transforms import AugInput, AugmentationList

from .image_input import ImageInput, read_rgb


@dataclass(frozen=True)
class PreparedImage:
    """An image that was read and resized.

    Attributes:
        index: Its position among the images.
        file_name: Its file, or None.
        pixels: (height, width, 3) in RGB; None for a file, which can be read again.
        sample: Detectron2's input dict.
    """

    index: int
    file_name: str | None
    pixels: npt.NDArray[np.uint8] | None
    sample: dict[str, Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"images[{self.index}]" + (f" ({self.file_name})" if self.file_name else "")


def prepare_image(
    index: int, image: ImageInput, augmentations: AugmentationList, input_format: str
) -> PreparedImage:
    """Gives an image as the detector takes it.

    Args:
        index: Its position among the images.
        image: The image.
        augmentations: The resizing of evaluation.
        input_format: Channel order of the detector.

    Raises:
        BadSampleError: The image cannot be read.
        TypeError: It is no image.
    """
    pixels = read_rgb(image)
    resized = AugInput(pixels[:, :, ::-1] if input_format == "BGR" else pixels)
    augmentations(resized)
    # A copy: the pixels may be the caller's own, and read-only.
    channels_first = np.array(resized.image.transpose(2, 0, 1), order="C")
    sample = {
        "image": torch.from_numpy(channels_first),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
    }
    if isinstance(image, (str, os.PathLike)):
        name = os.fspath(image)
        return PreparedImage(index, name, None, {**sample, "file_name": name})
    return PreparedImage(index, None, pixels, sample)
