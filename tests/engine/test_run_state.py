"""Which checkpoints a run keeps, and which one it goes on from."""

import json
import logging
from pathlib import Path

import pytest
import torch

from sparse_detr.engine.errors import UserError
from sparse_detr.engine.run_state import RunCheckpoints


def content(iteration: int) -> dict:
    return {
        "model": {"w": torch.full((3,), float(iteration))},
        "trainer": {},
        "iteration": iteration,
    }


def saved(directory: Path, iterations: range) -> RunCheckpoints:
    checkpoints = RunCheckpoints(directory, max_to_keep=2)
    for iteration in iterations:
        checkpoints.save(content(iteration), iteration)
    return checkpoints


def test_only_the_newest_are_kept_and_the_last_one_is_tagged(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, range(1, 5))
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "model_0000002.pth",
        "model_0000003.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    found = checkpoints.latest_readable()
    assert found is not None and found[0]["iteration"] == found[1].iteration == 4


@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "remove"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, range(1, 4))
    last = tmp_path / "model_0000002.pth"
    data = bytearray(last.read_bytes())
    if damage == "remove":
        last.unlink()
    elif damage == "flip":
        data[len(data) // 2] ^= 255
        last.write_bytes(bytes(data))
    else:
        last.write_bytes(bytes(data[: len(data) // 2]) if damage == "truncate" else b"")
    logging.getLogger("sparse_detr").propagate = True
    with caplog.at_level(logging.WARNING):
        found = checkpoints.latest_readable()
    assert found is not None and found[0]["iteration"] == 2
    assert damage == "remove" or "model_0000002.pth" in caplog.text


def test_no_readable_checkpoint_stops_with_one_message(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, range(1, 3))
    for path in tmp_path.glob("*.pth"):
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"no checkpoint in .* is readable"):
        checkpoints.latest_readable()


def test_an_empty_folder_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert RunCheckpoints(tmp_path / "absent").latest_readable() is None


@pytest.mark.parametrize("index", [None, "{half"])
def test_checkpoints_are_found_without_a_usable_index(tmp_path: Path, index: str | None) -> None:
    checkpoints = saved(tmp_path, range(1, 4))
    path = tmp_path / "checkpoints.json"
    path.unlink() if index is None else path.write_text(index)
    found = checkpoints.latest_readable()
    assert found is not None and found[0]["iteration"] == 3


def test_a_run_that_starts_anew_lists_no_file_of_an_earlier_one(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, range(1, 4))
    checkpoints.start_anew()
    assert checkpoints.entries() == [] and checkpoints.latest_readable() is None
    assert not (tmp_path / "last_checkpoint").exists()
    assert len(list(tmp_path.glob("model_*.pth"))) == 2
    checkpoints.save(content(1), 1)
    assert [entry.iteration for entry in checkpoints.entries()] == [1]


def test_a_foreign_checkpoint_is_not_taken_for_one_of_the_run(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "model_0000009.pth")
    with pytest.raises(UserError, match="not one of a run"):
        RunCheckpoints(tmp_path).latest_readable()


def test_the_index_is_plain_json(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 3))
    entries = json.loads((tmp_path / "checkpoints.json").read_text())
    assert [entry["iteration"] for entry in entries] == [1, 2]
    assert all(len(entry["sha256"]) == 64 for entry in entries)


def test_keeping_a_single_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_to_keep"):
        RunCheckpoints(tmp_path, max_to_keep=1)


def test_a_damaged_checkpoint_that_was_passed_over_does_not_push_out_a_good_one(
    tmp_path: Path,
) -> None:
    checkpoints = saved(tmp_path, range(1, 4))
    (tmp_path / "model_0000002.pth").write_bytes(b"")
    found = checkpoints.latest_readable()
    assert found is not None
    checkpoints.drop_after(found[1])
    checkpoints.save(content(4), 4)
    assert [entry.iteration for entry in checkpoints.entries()] == [2, 4]


def test_files_of_a_save_that_was_killed_are_removed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, range(1, 2))
    (tmp_path / ".model_0000001.pth.123.tmp").write_bytes(b"half")
    checkpoints.remove_leftovers()
    assert not list(tmp_path.glob(".*.tmp")) and (tmp_path / "model_0000000.pth").is_file()
