"""Every case of the reference vectors, and of the cases that the suite carries, is met."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sparse_detr.testing.parity import golden_cases, main
from sparse_detr.testing.small_case_record import CaseRecord
from sparse_detr.testing.small_cases import compare

OWN_CASES = Path(__file__).parent / "cases"
NO_CASE = "golden-dir without a case"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case of the suite, and per case of the option's folder."""
    if "case" not in metafunc.fixturenames:
        return
    golden = Path(metafunc.config.getoption("--golden-dir"))
    marks: list[object] = [_parameter(OWN_CASES, name) for name, _ in golden_cases(OWN_CASES)]
    if golden.is_dir():
        # A folder that is there without a case is a mistake: its one test fails.
        names = [name for name, _ in golden_cases(golden)] or [NO_CASE]
        marks += [_parameter(golden, name) for name in names]
    else:
        absent = pytest.mark.skip(reason=f"--golden-dir {golden} does not exist")
        marks.append(pytest.param(None, id="golden-dir", marks=absent))
    metafunc.parametrize("case", marks)


def _parameter(folder: Path, name: str) -> object:
    return pytest.param((folder, name), id=name)


def test_case_equals_its_reference(case: tuple[Path, str]) -> None:
    folder, name = case
    cases = dict(golden_cases(folder))
    assert name in cases, f"no reference vectors in --golden-dir {folder}"
    comparisons = cases[name]()
    assert comparisons
    for comparison in comparisons:
        assert comparison.passed, comparison.line()


@pytest.mark.parametrize("below", ["", "sparse_detr"])
def test_cases_are_found_in_a_folder_and_in_its_parent(tmp_path: Path, below: str) -> None:
    _copy_of_own_cases(tmp_path / "vectors" / below)
    assert [name for name, _ in golden_cases(tmp_path / "vectors")] == ["own_deformable_bbr"]


def _copy_of_own_cases(target: Path) -> Path:
    shutil.copytree(OWN_CASES, target)
    listing = json.loads((target / "cases.json").read_text())
    kept = {"own_deformable_bbr": listing["own_deformable_bbr"]}
    (target / "cases.json").write_text(json.dumps(kept))
    return target


def test_program_prints_one_line_per_case_and_ends_with_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(_copy_of_own_cases(tmp_path / "cases"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok   own_deformable_bbr:")
    assert "worst error" in lines[0]


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("own_deformable_bbr.npz", "out/dec_1/pred_boxes"),
        ("own_deformable_bbr.npz", "match/dec_0/img1"),
        ("own_deformable_bbr_grads.npz", "grad/transformer.level_embed"),
    ],
)
def test_program_ends_with_one_when_a_single_value_of_the_reference_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, key: str
) -> None:
    folder = _copy_of_own_cases(tmp_path / "cases")
    with np.load(folder / file) as stored:
        arrays = dict(stored)
    arrays[key] = arrays[key].copy()
    arrays[key].flat[-1] += 1 if arrays[key].dtype.kind == "i" else 1e-8
    np.savez(folder / file, **arrays)
    assert main([str(folder)]) == 1
    assert "MISS own_deformable_bbr" in capsys.readouterr().out


def test_program_ends_with_two_where_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "absent")]) == 2
    for content in ("{", "[]"):
        (tmp_path / "cases.json").write_text(content)
        assert main([str(tmp_path)]) == 2


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [(7, "TypeError"), ({"flags": ""}, "KeyError"), ({"flags": 7}, "AttributeError")],
)
def test_a_case_that_cannot_be_run_is_a_miss_and_the_others_are_still_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: object, kind: str
) -> None:
    folder = _copy_of_own_cases(tmp_path / "cases")
    listing = json.loads((folder / "cases.json").read_text())
    damaged = {name: folder / f"{name}.npz" for name in ("damaged", "damaged_grads")}
    for name, path in damaged.items():
        shutil.copy(folder / f"{name.replace('damaged', 'own_deformable_bbr')}.npz", path)
    (folder / "cases.json").write_text(json.dumps({"damaged": recipe, **listing}))
    assert main([str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"MISS damaged: cannot be run: {kind}")
    assert lines[1].startswith("ok   own_deformable_bbr")


@pytest.mark.parametrize(
    "key",
    [
        "score/topk_indices",
        "score/sparse_token_nums",
        "two_stage/topk_indices",
        "dam/binary_target",
    ],
)
def test_indices_and_counts_of_a_reference_must_be_compared(key: str) -> None:
    with np.load(OWN_CASES / "own_deformable_bbr.npz") as stored:
        golden = {name: stored[name] for name in ("loss_weights_json",)}
    comparison = compare("case", CaseRecord(), {**golden, key: np.zeros(2)}, {})
    assert not comparison.passed and "the run lacks" in comparison.line()


def test_unknown_flags_of_a_case_are_a_miss_that_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy_of_own_cases(tmp_path / "cases")
    listing = json.loads((folder / "cases.json").read_text())
    listing["own_deformable_bbr"]["flags"] += " --surprise"
    (folder / "cases.json").write_text(json.dumps(listing))
    assert main([str(folder)]) == 1
    assert "--surprise" in capsys.readouterr().out
