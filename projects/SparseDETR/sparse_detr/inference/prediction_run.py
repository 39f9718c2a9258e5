"""Many image and video files through a predictor: pictures, videos and COCO results on the disk.

Role in the flow: behind `tools/predict.py`.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.coco_json import read_coco_json
from ..data.mapper import BadSampleError
from ..engine.checkpoint_file import write_text
from ..engine.errors import UserError, user_errors
from .detections import Detections
from .input_files import InputFile, result_paths
from .predictor import Predictor
from .video import Frame, VideoFile, VideoWriter, video_writer

_SECONDS_BETWEEN_NOTES = 5.0


@dataclass(frozen=True)
class RunOptions:
    """What a run writes.

    Attributes:
        output_dir: Folder of pictures and videos; None writes none.
        json_file: File of the results in COCO's format; None writes none.
        image_ids: Ids of the images by name or base name; None takes numbers from the file names
            where all are numbers, else counts from 1; frames of videos are counted behind them.
        every: Of a video each frame whose number is a multiple is looked at; those between are
            drawn with the boxes of the last one.
        scale: Size of the pictures in sizes of the images.
    """

    output_dir: Path | None
    json_file: Path | None = None
    image_ids: Mapping[str, int] | None = None
    every: int = 1
    scale: float = 1.0


class PredictionRun:
    """Predicts for files; what cannot be read is named and left out.

    After each file its results are complete. :meth:`write_json` may be called at any time.

    Args:
        predictor: The predictor.
        files: The files; images come first, whatever the order.
        options: What is written.
        say: Takes lines about the progress.

    Attributes:
        num_done: Files that are done.
        problems: A line for each file that could not be read.

    Raises:
        UserError: An image has no id in ``options.image_ids``.
    """

    def __init__(
        self,
        predictor: Predictor,
        files: Sequence[InputFile],
        options: RunOptions,
        say: Callable[[str], None] = print,
    ) -> None:
        ordered = sorted(files, key=lambda file: file.is_video)
        self.predictor = predictor
        self.options = options
        self.num_done = 0
        self.problems: list[str] = []
        self._files = ordered
        self._targets = (
            None if options.output_dir is None else result_paths(ordered, options.output_dir)
        )
        self._ids = image_ids_of(ordered, options.image_ids)
        self._say = say
        self._records: list[dict[str, Any]] = []
        # Frames of videos have numbers that no image has.
        self._next_frame_id = 1 + max(self._ids, default=0)

    def targets(self) -> list[Path]:
        """Gives all the files that the run writes."""
        json_file = self.options.json_file
        return [*(self._targets or ()), *([] if json_file is None else [json_file])]

    def run(self) -> None:
        """Predicts for all files and writes all results.

        Raises:
            UserError: A result cannot be written.
            KeyboardInterrupt: Results until then are complete, but for the json file.
        """
        pictures = [file for file in self._files if not file.is_video]
        with user_errors("result", OSError):
            self._predict_images(pictures)
            for position in range(len(pictures), len(self._files)):
                try:
                    self._predict_video(position)
                except _UnreadableVideoError as error:
                    self._leave_out(str(error))
        self.write_json()

    def write_json(self) -> None:
        """Writes the results so far, where they are wanted."""
        file = self.options.json_file
        if file is None:
            return
        with user_errors(f"--json {file}", OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(json.dumps(self._records), file)

    def _predict_images(self, files: Sequence[InputFile]) -> None:
        def leave_out(error: BadSampleError) -> None:
            # Its cause has the message without the position among the images.
            self._leave_out(str(error.__cause__ or error))

        paths = (file.path for file in files)
        for found in self.predictor.stream(paths, on_bad_image=leave_out):
            file = files[found.index]
            self._record(found, file, self._ids[found.index])
            written = ""
            if self._targets is not None:
                target = found.save(self._targets[found.index], self.options.scale)
                written = f" -> {target}"
            self.num_done += 1
            self._say(
                f"[{found.index + 1}/{len(self._files)}] {file.name}: {found.summary()}{written}"
            )

    def _predict_video(self, position: int) -> None:
        file = self._files[position]
        try:
            video = VideoFile(file.path)
        except UserError as error:
            raise _UnreadableVideoError(str(error)) from error
        try:
            if self._targets is None:
                num_frames = self._each_frame(video, file, None)
            else:
                with video_writer(self._targets[position], video.frames_per_second) as writer:
                    num_frames = self._each_frame(video, file, writer)
        finally:
            video.close()
        self.num_done += 1
        written = "" if self._targets is None else f" -> {self._targets[position]}"
        self._say(f"[{position + 1}/{len(self._files)}] {file.name}: {num_frames} frames{written}")
        if video.num_frames is not None and num_frames < video.num_frames:
            self._leave_out(
                f"video {file.path} ends early: {num_frames} of {video.num_frames} frames could "
                "be read"
            )

    def _each_frame(self, video: VideoFile, file: InputFile, writer: VideoWriter | None) -> int:
        """Gives the number of frames after detecting in them and writing them."""
        start = said = time.monotonic()
        number = -1
        for number, (frame, found, is_new) in enumerate(self._detected(video)):
            if is_new:
                self._record(found, file, self._next_frame_id, number)
                self._next_frame_id += 1
            if writer is not None:
                writer.write(found.draw(self.options.scale, frame))
            now = time.monotonic()
            if now - said >= _SECONDS_BETWEEN_NOTES:
                said = now
                total = "" if video.num_frames is None else f" of {video.num_frames}"
                rate = (number + 1) / (now - start)
                self._say(f"  {file.name}: frame {number + 1}{total}, {rate:.1f} frames/s")
        return number + 1

    def _detected(self, video: VideoFile) -> Iterator[tuple[Frame, Detections, bool]]:
        """Gives each frame with its detections, and whether they are its own."""
        if self.options.every == 1:
            for found in self.predictor.stream(_readable(video)):
                yield found.image, found, True
            return
        # Batches would hold all the frames in between.
        last: Detections | None = None
        for number, frame in enumerate(_readable(video)):
            is_new = number % self.options.every == 0
            if is_new or last is None:
                last = self.predictor(frame)
            yield frame, last, is_new

    def _record(
        self, found: Detections, file: InputFile, image_id: int, frame: int | None = None
    ) -> None:
        """Keeps the detections for the json file."""
        if self.options.json_file is None:
            return
        extra: dict[str, Any] = {"file_name": file.name.as_posix()}
        if frame is not None:
            extra["frame"] = frame
        self._records += [{**record, **extra} for record in found.to_coco(image_id)]

    def _leave_out(self, problem: str) -> None:
        self.problems.append(problem)
        print(f"left out: {problem}", file=sys.stderr, flush=True)


class _UnreadableVideoError(Exception):
    """A video that cannot be read."""


def _readable(video: VideoFile) -> Iterator[Frame]:
    """Gives the frames; that there is none becomes the error of an unreadable video."""
    try:
        yield from video
    except UserError as error:
        raise _UnreadableVideoError(str(error)) from error


def image_ids_of(files: Sequence[InputFile], by_name: Mapping[str, int] | None) -> list[int]:
    """Gives the id of each image for results in COCO's format.

    Args:
        files: All files of the run, images first.
        by_name: Ids by name or base name; None takes the numbers that all images are named with,
            else the positions from 1, those of unreadable images included.

    Returns:
        Ids of the images that are no videos.

    Raises:
        UserError: ``by_name`` lacks an image, or there are videos beside it.
    """
    if by_name is None:
        stems = [file.name.stem for file in files if not file.is_video]
        numbers = [int(stem) for stem in stems if stem.isdecimal()]
        return numbers if len(set(numbers)) == len(stems) else list(range(1, len(stems) + 1))
    ids = []
    for file in files:
        found = by_name.get(file.name.as_posix(), by_name.get(file.name.name))
        if found is None:
            raise UserError(f"--annotations: {file.path} is not among its images")
        ids.append(found)
    return ids


def image_ids_from(annotation_file: str) -> dict[str, int]:
    """Gives the image ids of a COCO annotation file by file name, and by base name where unique.

    Raises:
        UserError: The file cannot be read.
    """
    with user_errors("--annotations", ValueError, OSError, KeyError, TypeError):
        images = read_coco_json(annotation_file)["images"]
        by_name = {str(image["file_name"]): int(image["id"]) for image in images}
    bases = Counter(Path(name).name for name in by_name)
    unique = {Path(n).name: number for n, number in by_name.items() if bases[Path(n).name] == 1}
    return {**unique, **by_name}
