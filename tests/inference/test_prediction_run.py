"""Ids of images and frames in the results of many files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse_detr.engine.errors import UserError
from sparse_detr.inference.input_files import InputFile
from sparse_detr.inference.prediction_run import image_ids_of


def files(*names: str) -> list[InputFile]:
    return [InputFile(Path("in") / name, Path(name)) for name in names]


def test_numbers_that_all_images_are_named_with_are_their_ids() -> None:
    assert image_ids_of(files("000012.png", "7.jpg"), None) == [12, 7]
    assert image_ids_of(files("000012.png", "7.jpg", "clip.mp4", "7.mp4"), None) == [12, 7]


@pytest.mark.parametrize("names", [("12.png", "a.jpg"), ("7.png", "deep/7.png")])
def test_other_images_are_counted(names: tuple[str, ...]) -> None:
    assert image_ids_of(files(*names, "7.mp4"), None) == [1, 2]


def test_ids_of_an_annotation_file_are_needed_for_all() -> None:
    assert image_ids_of(files("a.png", "deep/b.png"), {"b.png": 5, "a.png": 3}) == [3, 5]
    with pytest.raises(UserError, match=r"c\.png is not among its images"):
        image_ids_of(files("c.png"), {"a.png": 3})
