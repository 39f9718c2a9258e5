"""Files, folders and patterns become a list of files with names for their results."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse_detr.engine.errors import UserError
from sparse_detr.inference.input_files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    find_input_files,
    result_paths,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", "clip.mp4", "deep/a.png", "deep/c.tif"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return tmp_path / "in"


def names(paths: list[str], recursive: bool = False, **options: object) -> list[str]:
    return [file.name.as_posix() for file in find_input_files(paths, recursive, **options)]


def test_a_folder_gives_its_images_in_order(folder: Path) -> None:
    assert names([str(folder)]) == ["a.png", "b.JPG"]
    every = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    assert names([str(folder)], suffixes=every) == ["a.png", "b.JPG", "clip.mp4"]


def test_a_folder_of_folders_keeps_its_structure(folder: Path) -> None:
    assert names([str(folder)], True) == ["a.png", "b.JPG", "deep/a.png", "deep/c.tif"]


def test_patterns_and_files_of_any_suffix_are_taken_and_none_twice(folder: Path) -> None:
    assert names([str(folder / "notes.txt")]) == ["notes.txt"]
    assert names([str(folder / "**" / "*.*")]) == ["a.png", "b.JPG", "a.png", "c.tif"]
    assert names([str(folder / "a.png"), str(folder), str(folder / "[ab].*")]) == ["a.png", "b.JPG"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").touch()
    assert names([str(tmp_path / "a[1].png")]) == ["a[1].png"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent.jpg", "absent.jpg does not exist"),
        ("*.gif", "no image matches .*gif"),
        ("deep/..", "holds no image"),
    ],
)
def test_a_path_that_names_no_image_is_a_user_error(
    path: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    with pytest.raises(UserError, match=f"--input: .*{message}"):
        find_input_files([str(tmp_path / path)])


def test_results_have_the_names_of_their_files_and_are_all_different(folder: Path) -> None:
    files = find_input_files(
        [str(folder), str(folder / "deep" / "*"), str(folder / "clip.mp4")],
        suffixes=IMAGE_SUFFIXES,
    )
    results = result_paths(files, Path("out"))
    assert [path.as_posix() for path in results] == [
        "out/a.png",
        "out/b.JPG",
        "out/a_2.png",
        "out/c.png",
        "out/clip.mp4",
    ]
    (nested, *_) = result_paths(find_input_files([str(folder)], True)[2:], Path("out"))
    assert nested == Path("out/deep/a.png")
