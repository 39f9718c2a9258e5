"""Frames of video files, in and out.

Role in the flow: around prediction, for videos. OpenCV is imported when the first one is opened.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine.errors import UserError

Frame = npt.NDArray[np.uint8]
"""(height, width, 3), RGB."""

_CODEC = "mp4v"


def opencv() -> ModuleType:
    """Gives OpenCV.

    Raises:
        UserError: It is not installed, or without support for video.
    """
    # The library below OpenCV prints its own messages unless told otherwise before it is used.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            f"videos are read with OpenCV, which cannot be imported ({error}); install it with: "
            "pip install opencv-python-headless"
        ) from error
    return cv2  # type: ignore[no-any-return, unused-ignore]


class VideoFile:
    """A video to read, frame by frame; one frame is held at a time.

    Args:
        path: The file.

    Attributes:
        path: The file.
        frames_per_second: As the file states it; 25 where it states none.
        num_frames: As the file states it, which can be wrong; None where it states none.

    Raises:
        UserError: The file is missing, is no video, or its codec is unknown here.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"video {self.path} does not exist")
        cv2 = opencv()
        with _quiet(cv2):
            self._capture: Any = cv2.VideoCapture(str(self.path))
        if not self._capture.isOpened():
            raise UserError(
                f"video {self.path} cannot be opened: it is damaged, or this OpenCV "
                f"({cv2.__version__}) does not know its codec; converting helps: "
                f"ffmpeg -i {self.path.name} -c:v libx264 converted.mp4"
            )
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        count = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frames_per_second = rate if math.isfinite(rate) and rate > 0 else 25.0
        self.num_frames = int(count) if math.isfinite(count) and count > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        """Gives the frames that can be read, once.

        Raises:
            UserError: There is not one.
        """
        cv2 = opencv()
        number = 0
        while True:
            with _quiet(cv2):
                there, frame = self._capture.read()
            if not there:
                break
            number += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        if not number:
            raise UserError(f"video {self.path} holds no frame that can be read")

    def close(self) -> None:
        """Lets go of the file."""
        self._capture.release()


@contextmanager
def video_writer(path: Path, frames_per_second: float) -> Iterator[VideoWriter]:
    """Gives a writer of an MP4 file (codec mp4v), which is there once the block ends.

    Interrupted by Ctrl-C it holds the frames until then; after an error there is no file, and an
    older one is untouched.

    Args:
        path: The file, ``.mp4``. Its folder is made.
        frames_per_second: Frames per second.

    Raises:
        UserError: The file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # OpenCV tells the format by the suffix.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    writer = VideoWriter(temporary, path, frames_per_second)
    try:
        try:
            yield writer
        finally:
            writer.close()
    except KeyboardInterrupt:
        if writer.num_frames:
            temporary.replace(path)
        raise
    else:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class VideoWriter:
    """Writes frames of one size; made by :func:`video_writer`.

    Args:
        file: The file to write.
        target: Its name in messages.
        frames_per_second: Frames per second.

    Attributes:
        num_frames: Frames written.
    """

    def __init__(self, file: Path, target: Path, frames_per_second: float) -> None:
        self._file, self._target = file, target
        self._rate = frames_per_second
        self._writer: Any = None
        self.num_frames = 0

    def write(self, frame: Frame) -> None:
        """Writes a frame, of the size of the first one.

        Raises:
            UserError: The file cannot be written.
        """
        cv2 = opencv()
        if self._writer is None:
            height, width = frame.shape[:2]
            with _quiet(cv2):
                self._writer = cv2.VideoWriter(
                    str(self._file), cv2.VideoWriter.fourcc(*_CODEC), self._rate, (width, height)
                )
            if not self._writer.isOpened():
                raise UserError(
                    f"video {self._target} cannot be written: is the folder writable, and does "
                    f"this OpenCV ({cv2.__version__}) have the codec {_CODEC}?"
                )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.num_frames += 1

    def close(self) -> None:
        """Completes the file."""
        if self._writer is not None:
            self._writer.release()


@contextmanager
def _quiet(cv2: ModuleType) -> Iterator[None]:
    """Keeps OpenCV's own messages away: what went wrong is said in ours."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
