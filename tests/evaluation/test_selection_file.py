"""Kept tokens survive their file, and other files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparse_detr.evaluation.objects import NO_OBJECTS, ObjectBoxes
from sparse_detr.evaluation.selection_file import (
    StoredSelection,
    load_selections,
    save_selections,
)


def selection(image_id: object, seed: int, objects: ObjectBoxes = NO_OBJECTS) -> StoredSelection:
    levels = ((3 + seed, 5), (2, 3))
    kept = np.random.default_rng(seed).random(sum(h * w for h, w in levels)) < 0.4
    return StoredSelection.of(image_id, f"images/{seed} ö.png", levels, (30, 50), kept, objects)


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    objects = ObjectBoxes.of([([1.5, 2, 3, 4], 12.0), ([0, 0, 100, 100], 9999.5)])
    stored = [selection(7, 0, objects), selection("seven", 1), selection(9, 2, objects)]
    found = load_selections(save_selections(stored, tmp_path / "new" / "kept.npz"))
    assert list(found) == [7, "seven", 9]
    for one in stored:
        other = found[one.image_id]
        assert (one.file_name, one.level_sizes) == (other.file_name, other.level_sizes)
        assert one.original_size == other.original_size
        assert np.array_equal(one.kept, other.kept)
        assert np.array_equal(one.objects.boxes_xyxy, other.objects.boxes_xyxy)
        assert np.array_equal(one.objects.areas, other.objects.areas)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kept.npz"]


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_selections(tmp_path / "absent.npz")


class RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "foreign", "pickle", "short"])
def test_other_files_are_refused_and_nothing_in_them_runs(tmp_path: Path, kind: str) -> None:
    file, ran = tmp_path / "kept.npz", tmp_path / "ran"
    save_selections([selection(1, 0)], file)
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif kind == "foreign":
        np.savez(file, weights=np.ones(3))
    elif kind == "pickle":
        np.savez(file, format=np.array(RunsCode(ran), dtype=object))
    elif kind == "short":
        content = dict(np.load(file))
        np.savez(file, **{**content, "kept": content["kept"][:1]})
    else:
        file.write_bytes(b"" if kind == "empty" else b"no such file")
    with pytest.raises(ValueError, match="cannot be read as kept tokens"):
        load_selections(file)
    assert not ran.exists()


def test_any_damaged_byte_gives_the_content_or_one_message(tmp_path: Path) -> None:
    objects = ObjectBoxes.of([([1.5, 2, 3, 4], 12.0)])
    whole = save_selections([selection(1, 0, objects), selection(2, 1)], tmp_path / "a.npz")
    content, refused = whole.read_bytes(), set()
    generator, file = np.random.default_rng(0), tmp_path / "damaged.npz"
    # A few bytes anywhere, and each byte of what says how the first array is packed.
    places = [generator.integers(0, len(content), 3) for _ in range(300)]
    places += [[place] for place in range(30)]
    start = content.rindex(b"PK\x01\x02")
    places += [[place] for place in range(start, start + 46)]
    for chosen in places:
        damaged = bytearray(content)
        for place in chosen:
            damaged[int(place)] ^= int(generator.integers(1, 256))
        file.write_bytes(damaged)
        try:
            load_selections(file)
        except ValueError as error:
            assert "cannot be read as kept tokens" in str(error)
            refused.add(type(error.__cause__).__name__)
    assert {"BadZipFile", "NotImplementedError", "error"} & refused and len(refused) > 3


def test_kept_tokens_wait_as_one_bit_each() -> None:
    one = selection(1, 0)
    assert one.packed.nbytes == -(-one.kept.size // 8)
