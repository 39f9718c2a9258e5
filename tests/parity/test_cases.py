"""Every case of the reference vectors, and of the cases that the suite carries, is met."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sparse_detr.testing.parity import golden_cases, main

OWN_CASES = Path(__file__).parent / "cases"
SYSTEM = "sparse_detr"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case found in the two folders."""
    if "case" not in metafunc.fixturenames:
        return
    golden = Path(metafunc.config.getoption("--golden-dir"))
    folders = [OWN_CASES, golden / SYSTEM if (golden / SYSTEM).is_dir() else golden]
    found = [(folder, name) for folder in folders for name, _ in golden_cases(folder)]
    marks: list[object] = [pytest.param(case, id=case[1]) for case in found]
    if not any(folder != OWN_CASES for folder, _ in found):
        reason = f"no reference vectors in --golden-dir {golden}"
        marks.append(pytest.param(None, id="golden-dir", marks=pytest.mark.skip(reason=reason)))
    metafunc.parametrize("case", marks)


def test_case_equals_its_reference(case: tuple[Path, str]) -> None:
    folder, name = case
    run = dict(golden_cases(folder))[name]
    for comparison in run():
        assert comparison.passed, comparison.line()


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


def test_unknown_flags_of_a_case_are_a_miss_that_names_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy_of_own_cases(tmp_path / "cases")
    listing = json.loads((folder / "cases.json").read_text())
    listing["own_deformable_bbr"]["flags"] += " --surprise"
    (folder / "cases.json").write_text(json.dumps(listing))
    assert main([str(folder)]) == 1
    assert "--surprise" in capsys.readouterr().out
