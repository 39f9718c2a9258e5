"""Image sizes from texts and files, and as the evaluation resizes them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from sparse_detr.analysis.image_sizes import evaluation_resize, image_size, read_image_sizes
from sparse_detr.config.loading import load_config
from sparse_detr.data.augmentation import resized_shape


def test_a_size_is_height_times_width() -> None:
    assert image_size("800x1066") == (800, 1066)


@pytest.mark.parametrize("text", ["800", "800x0", "-1x5", "axb", "800x1066x3"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="HEIGHTxWIDTH"):
        image_size(text)


def test_a_file_lists_the_sizes_of_images_whatever_else_it_lists(tmp_path: Path) -> None:
    file = tmp_path / "sizes.csv"
    file.write_text("width,image_id,height\n640,139,426\n586,285,640\n")
    assert read_image_sizes(file) == [(426, 640), (640, 586)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "columns height and width"),
        ("", "columns height and width"),
        ("height,width\n", "lists no image"),
        ("height,width\n3,4\n5\n", "line 3"),
        ("height,width\n3,x\n", "line 2"),
    ],
)
def test_a_file_without_sizes_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "sizes.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_image_sizes(file)


def test_images_are_resized_as_the_evaluation_of_the_config_does() -> None:
    resize = evaluation_resize(load_config("sparse_detr/sparse_detr_r50_rho10_50ep"))
    for size in [(480, 640), (640, 427), (100, 900), (426, 640)]:
        assert resize(size) == resized_shape(*size, 800, 1333)
    assert resize((480, 640)) == (800, 1066)


def test_a_config_without_evaluation_cannot_resize() -> None:
    with pytest.raises(ValueError, match="augmentations"):
        evaluation_resize(load_config("models/sparse_detr"))
