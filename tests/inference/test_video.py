"""Videos are read and written frame by frame, with their size and speed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sparse_detr.engine.errors import UserError
from sparse_detr.inference.video import VideoFile, opencv, video_writer

pytest.importorskip("cv2")
RED = np.full((48, 64, 3), (250, 10, 10), dtype=np.uint8)
BLUE = np.full((48, 64, 3), (10, 10, 250), dtype=np.uint8)


def test_frames_size_speed_and_colours_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "größe.mp4"
    with video_writer(path, 12.5) as writer:
        for frame in (RED, RED, BLUE):
            writer.write(frame)
    video = VideoFile(path)
    assert (video.frames_per_second, video.num_frames) == (12.5, 3)
    frames = list(video)
    video.close()
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
    for frame, written in zip(frames, (RED, RED, BLUE), strict=True):
        assert np.abs(frame.astype(int) - written).mean() < 6
    assert [p.name for p in path.parent.iterdir()] == ["größe.mp4"]


def test_an_interrupted_video_holds_the_frames_until_then(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(KeyboardInterrupt), video_writer(path, 10) as writer:
        writer.write(RED)
        writer.write(RED)
        raise KeyboardInterrupt
    assert len(list(VideoFile(path))) == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_after_an_error_an_older_video_is_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), video_writer(path, 10) as writer:
        writer.write(RED)
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"no video"])
def test_a_file_that_is_no_video_is_a_user_error(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.mp4 cannot be opened: it is damaged, or this"):
        VideoFile(path)
    assert capfd.readouterr().err == ""


def test_a_missing_video_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.mp4 does not exist"):
        VideoFile(tmp_path / "absent.mp4")


def test_a_video_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    single = np.zeros((1, 1, 3), dtype=np.uint8)
    with (
        pytest.raises(UserError, match=r"a\.mp4 cannot be written"),
        video_writer(tmp_path / "a.mp4", 10) as writer,
    ):
        writer.write(single)
    assert list(tmp_path.iterdir()) == []


def test_without_opencv_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="pip install opencv-python-headless"):
        opencv()
