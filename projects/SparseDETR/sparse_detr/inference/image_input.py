"""One image, in any form that a person has it in, as an array in RGB.

Role in the flow: the start of prediction. What cannot be an image is named here, before the
detector sees it.
"""

from __future__ import annotations

import logging
import os
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image, ImageOps
from torch import Tensor

from ..data.mapper import BadSampleError, read_image_file

logger = logging.getLogger(__name__)

ImageInput: TypeAlias = "str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Tensor"
"""A file, a Pillow image, an array (height, width, 3) or a tensor (3, height, width), in RGB."""

# Resizing that interpolates leaves the range by rounding.
_ROUNDING = 1e-3
_MORE_THAN_8_BITS = ("I", "F")
_ARRAY = "an image as an array is (height, width) or (height, width, channels) with"
_TENSOR = "an image as a tensor is (height, width) or (channels, height, width) with"


def read_rgb(image: ImageInput) -> npt.NDArray[np.uint8]:
    """Gives an image as bytes in RGB.

    Files and Pillow images are read as Detectron2 reads files: turned as their EXIF data say, a
    palette looked up, alpha dropped. Arrays and tensors of integers hold 0 to 255, those of
    floating point 0 to 1 (give or take rounding), which become 8 bits; one channel is shown as
    grey and a fourth one (alpha) dropped.

    Args:
        image: A file, a Pillow image, an array (height, width[, 1, 3 or 4]) or a tensor
            ([1, 3 or 4,] height, width) on any device.

    Returns:
        (height, width, 3); an array of bytes that has this shape already is given back itself.

    Raises:
        BadSampleError: The image cannot be read, or has another shape or range of values.
        TypeError: It is nothing of the above.
    """
    if isinstance(image, (str, os.PathLike)):
        return _of_file(image)
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    if isinstance(image, Tensor):
        return _of_tensor(image)
    if isinstance(image, np.ndarray):
        return _as_three_channels(_as_bytes(image), _ARRAY, image.shape)
    raise TypeError(
        "an image must be a file name, a Pillow image, a numpy array (height, width, 3) or a "
        f"tensor (3, height, width), got {type(image).__name__}"
    )


def _of_file(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    pixels = read_image_file(path)
    with Image.open(path) as header:
        _warn_of_lost_bits(header.mode, os.fspath(path))
    return pixels


def _of_pillow(image: Image.Image) -> npt.NDArray[np.uint8]:
    if 0 in image.size:
        raise BadSampleError(
            f"a Pillow image must have at least one pixel, got {image.size[0]}x{image.size[1]}"
        )
    _warn_of_lost_bits(image.mode, "a Pillow image")
    try:
        turned = ImageOps.exif_transpose(image)
        pixels: npt.NDArray[np.uint8] = convert_PIL_to_numpy(turned, "RGB")
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow reads a file only now.
        raise BadSampleError(f"the Pillow image cannot be read: {error}") from error
    return pixels


def _warn_of_lost_bits(mode: str, what: str) -> None:
    if mode.split(";")[0] in _MORE_THAN_8_BITS:
        logger.warning(
            "%s has more than 8 bits per pixel (mode %s): values above 255 are read as white, as "
            "Detectron2 does in training; scale it to 0..255 where that is not meant",
            what,
            mode,
        )


def _of_tensor(image: Tensor) -> npt.NDArray[np.uint8]:
    values = image.detach().cpu()
    # Half precision has no counterpart in numpy, or one that rounds the scaling.
    array = (values.double() if values.is_floating_point() else values).numpy()
    if array.ndim == 3:
        array = array.transpose(1, 2, 0)
    return _as_three_channels(_as_bytes(array), _TENSOR, tuple(image.shape))


def _as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Gives the values as 0 to 255, whatever the shape."""
    if array.dtype == np.uint8 or array.size == 0:
        return array.astype(np.uint8, copy=False)
    if array.dtype.kind == "b":
        raise BadSampleError(
            "an image must hold numbers, got a mask of truth values; as black and white it is "
            "mask.astype('uint8') * 255 or mask.to(torch.uint8) * 255"
        )
    if array.dtype.kind not in "iuf":
        raise BadSampleError(f"an image must hold numbers, got {array.dtype}")
    lowest, highest = array.min(), array.max()
    if array.dtype.kind == "f":
        # The comparison is false for NaN.
        if not (lowest >= -_ROUNDING and highest <= 1 + _ROUNDING):
            raise BadSampleError(
                "an image of floating point numbers must be in 0 to 1, got values from "
                f"{lowest:.6g} to {highest:.6g}; an image in 0 to 255 must be uint8 "
                "(image.astype('uint8') or image.to(torch.uint8))"
            )
        scaled: npt.NDArray[np.float64] = array.astype(np.float64).clip(0, 1) * 255
        return np.rint(scaled).astype(np.uint8)
    if lowest < 0 or highest > 255:
        raise BadSampleError(
            f"an image of integers must be in 0 to 255, got values from {lowest} to {highest}; "
            "scale it first"
        )
    return array.astype(np.uint8)


def _as_three_channels(
    array: npt.NDArray[np.uint8], expected: str, got: tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    """Gives (height, width, 3) from (height, width) or (height, width, 1, 3 or 4)."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise BadSampleError(
            f"{expected}, 1, 3 or 4 channels and at least one pixel; got {got}{_hint(got)}"
        )
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return array[:, :, :3]


def _hint(shape: tuple[int, ...]) -> str:
    if len(shape) == 4:
        return "; give the images of a batch as a list: list(images)"
    if len(shape) == 3 and 0 not in shape:
        return "; are the channels in the wrong place? arrays have them last, tensors first"
    return ""
