"""Checkpoint files are whole or absent, and reading one never runs code."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch

from sparse_detr.engine import checkpoint_file
from sparse_detr.engine.checkpoint_file import (
    UnreadableCheckpointError,
    read_checkpoint,
    write_checkpoint,
    write_text,
)
from sparse_detr.engine.errors import UserError

CONTENT = {"model": {"weight": torch.arange(1000.0)}, "iteration": 3}


class Marker:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.path),))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    digest = write_checkpoint(CONTENT, tmp_path / "a.pth")
    content = read_checkpoint(tmp_path / "a.pth", digest)
    assert content["iteration"] == 3 and torch.equal(
        content["model"]["weight"], CONTENT["model"]["weight"]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = write_checkpoint(CONTENT, tmp_path / "a.pth")

    def full_disk(content: object, stream: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_file.torch, "save", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_checkpoint({"model": {}}, tmp_path / "a.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
    assert read_checkpoint(tmp_path / "a.pth", digest)["iteration"] == 3


def test_a_text_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    write_text("old", tmp_path / "a.txt")
    monkeypatch.setattr(checkpoint_file.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text("new", tmp_path / "a.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused_with_and_without_its_checksum(
    tmp_path: Path, share: float
) -> None:
    path = tmp_path / "a.pth"
    digest = write_checkpoint(CONTENT, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for known in (digest, None):
        with pytest.raises(UnreadableCheckpointError, match=r"damaged|refused"):
            read_checkpoint(path, known)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    digest = write_checkpoint(CONTENT, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UnreadableCheckpointError, match="checksum"):
        read_checkpoint(path, digest)


@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl"])
def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / name
    if name.endswith(".pth"):
        torch.save({"model": Marker(marker)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Marker(marker)}))
    with pytest.raises(UnreadableCheckpointError, match="refused"):
        read_checkpoint(path)
    assert not marker.exists()


def test_a_missing_file_and_a_file_of_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UnreadableCheckpointError, match="holds list"):
        read_checkpoint(tmp_path / "list.pth")


def test_a_record_is_read_only_where_it_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "released.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(rho=0.1)}, path)
    for _ in range(2):
        with pytest.raises(UnreadableCheckpointError, match=r"argparse.Namespace.*converts it"):
            read_checkpoint(path)
        assert read_checkpoint(path, allowed=(argparse.Namespace,))["args"].rho == 0.1
