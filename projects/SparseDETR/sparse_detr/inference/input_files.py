"""The images and videos that a command line names: files, folders and patterns.

Role in the flow: before prediction and pictures.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
_WRITTEN_AS_THEY_ARE = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class InputFile:
    """An image or a video.

    Attributes:
        path: The file.
        name: Its name for results: below the folder that was given, or of the file alone.
    """

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether the suffix is that of a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_input_files(
    paths: Iterable[str], recursive: bool = False, suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> list[InputFile]:
    """Gives the files that paths name.

    Args:
        paths: Files, folders, and patterns ("holiday/*.jpg", "**/*.png"); a file is taken whatever
            its suffix.
        recursive: Also look into the folders of folders.
        suffixes: What is taken from folders.

    Returns:
        The files; those of a folder or a pattern in alphabetical order, none twice.

    Raises:
        UserError: A path does not exist, or names no file of these kinds.
    """
    found: dict[Path, InputFile] = {}
    for text in paths:
        for file in _files_of(text, recursive, suffixes):
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def _files_of(text: str, recursive: bool, suffixes: Sequence[str]) -> list[InputFile]:
    path = Path(text)
    if path.is_file():
        return [InputFile(path, Path(path.name))]
    if path.is_dir():
        every = path.rglob("*") if recursive else path.iterdir()
        inside = sorted(p for p in every if p.suffix.lower() in suffixes and p.is_file())
        if not inside:
            below = "" if recursive else " (the folders in it are not looked into)"
            raise UserError(
                f"--input: folder {path} holds no image{below}; looked for {', '.join(suffixes)}"
            )
        return [InputFile(p, p.relative_to(path)) for p in inside]
    if glob.has_magic(text):
        matches = sorted(Path(match) for match in glob.glob(text, recursive=True))
        files = [p for p in matches if p.suffix.lower() in suffixes and p.is_file()]
        if not files:
            raise UserError(f"--input: no image matches {text}")
        return [InputFile(p, Path(p.name)) for p in files]
    raise UserError(f"--input: {path} does not exist")


def result_paths(files: Sequence[InputFile], folder: Path) -> list[Path]:
    """Gives where the picture or video of each file goes: its own name in ``folder``.

    Formats that are not for pictures become ``.png`` and videos ``.mp4``; names that come twice
    get a number.

    Args:
        files: The files.
        folder: Folder of the results.

    Returns:
        Paths, all different.
    """
    used: set[Path] = set()
    results = []
    for file in files:
        suffix = file.name.suffix.lower()
        kept = suffix in _WRITTEN_AS_THEY_ARE
        wanted = ".mp4" if file.is_video else file.name.suffix if kept else ".png"
        path, number = folder / file.name.with_suffix(wanted), 2
        while path in used:
            path = folder / file.name.with_name(f"{file.name.stem}_{number}{wanted}")
            number += 1
        used.add(path)
        results.append(path)
    return results
