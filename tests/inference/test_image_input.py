"""Every kind of image becomes the same bytes in RGB, and what is no image is named."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from PIL import Image

from sparse_detr.data.mapper import BadSampleError
from sparse_detr.inference.image_input import read_rgb

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]
ALPHA = np.concatenate([PIXELS, PIXELS[..., :1]], axis=2)


def first(array: np.ndarray) -> torch.Tensor:
    """The tensor of an array, channels first."""
    return torch.from_numpy(np.moveaxis(array, -1, 0).copy())


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        ALPHA,
        PIXELS.astype(np.int64),
        PIXELS / np.float32(255),
        (PIXELS / 255).astype(np.float64),
        np.asfortranarray(PIXELS),
        first(PIXELS),
        first(ALPHA),
        first(PIXELS / np.float32(255)).requires_grad_(),
        first(PIXELS).to(torch.int32),
        Image.fromarray(PIXELS),
        Image.fromarray(ALPHA),
    ],
)
def test_colour_images_of_every_kind_are_the_same_bytes(image: object) -> None:
    pixels = read_rgb(image)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY[..., None],
        torch.from_numpy(GREY.copy()),
        torch.from_numpy(GREY.copy())[None],
        Image.fromarray(GREY),
    ],
)
def test_grey_images_of_every_kind_have_three_equal_channels(image: object) -> None:
    np.testing.assert_array_equal(read_rgb(image), np.stack([GREY] * 3, axis=2))


def test_bfloat16_is_rounded_to_the_nearest_byte() -> None:
    image = torch.tensor([0.0, 0.5, 1.0], dtype=torch.bfloat16).reshape(3, 1, 1)
    assert read_rgb(image).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16", "EXIF"])
def test_files_and_pillow_images_are_read_as_detectron2_reads_files(
    mode: str, tmp_path: Path
) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    if mode == "I;16":
        Image.fromarray(GREY.astype(np.uint16) * 2).save(path)
    elif mode == "EXIF":
        path = tmp_path / "image.jpg"
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(PIXELS).save(path, exif=exif)
    else:
        Image.fromarray(PIXELS).convert(mode).save(path)
    expected = read_image(str(path), format="RGB")
    assert expected.shape == ((9, 6, 3) if mode == "EXIF" else (6, 9, 3))
    np.testing.assert_array_equal(read_rgb(path), expected)
    np.testing.assert_array_equal(read_rgb(str(path)), expected)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(read_rgb(opened), expected)


def test_an_image_of_16_bits_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(GREY.astype(np.uint16) * 200).save(path)
    with caplog.at_level(logging.WARNING):
        read_rgb(path)
    assert "deep.png has more than 8 bits per pixel" in caplog.text


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 4, 3), np.nan), "must be in 0 to 1, got values from nan"),
        (PIXELS.astype(np.float32), "from 0 to 249; an image in 0 to 255 must be uint8"),
        (PIXELS.astype(np.uint16) * 256, "must be in 0 to 255, got values from 0 to 6"),
        (PIXELS.astype(np.int16) - 300, "must be in 0 to 255, got values from -300"),
        (PIXELS > 100, r"got a mask of truth values; .* mask\.astype\('uint8'\) \* 255"),
        (np.full((4, 4, 3), 1.0015), "got values from 1.0015 to 1.0015"),
        (np.full((4, 4, 3), -0.0015), "got values from -0.0015 to -0.0015"),
        (PIXELS.transpose(2, 0, 1), r"got \(3, 6, 9\); are the channels in the wrong place"),
        (torch.from_numpy(PIXELS.copy()), r"got \(6, 9, 3\); are the channels in the wrong"),
        (PIXELS[None], r"got \(1, 6, 9, 3\); give the images of a batch as a list"),
        (PIXELS[:0], "at least one pixel"),
        (np.zeros(()), "at least one pixel"),
        ("absent.png", "image absent.png does not exist"),
        (".", "image . is a folder"),
        ("http://example.org/a.png", "is an address, expected a file"),
    ],
)
def test_what_cannot_be_an_image_is_named(image: object, message: str) -> None:
    with pytest.raises(BadSampleError, match=message):
        read_rgb(image)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BadSampleError, match=r"cut\.png cannot be read"):
        read_rgb(path)
    with (
        Image.open(path) as opened,
        pytest.raises(BadSampleError, match="Pillow image cannot be read"),
    ):
        read_rgb(opened)


@pytest.mark.parametrize("thing", [None, 3, [1, 2], b"bytes"])
def test_something_else_is_a_type_error(thing: object) -> None:
    with pytest.raises(TypeError, match=f"got {type(thing).__name__}"):
        read_rgb(thing)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_that_resizing_pushed_out_of_range_are_taken_as_its_ends(kind: type) -> None:
    image = np.array([[-1e-6, 0.5], [1.000001, 1.0]], dtype=kind)
    assert read_rgb(image)[..., 0].tolist() == [[0, 128], [255, 255]]
