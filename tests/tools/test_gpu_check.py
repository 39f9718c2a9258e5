"""The GPU check runs every step, and never passes without having checked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import gpu_check


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "missing", lambda: None)


def test_without_a_gpu_it_fails_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "missing", lambda: "no GPU is visible")
    assert gpu_check.main([]) == 1
    assert "nothing was checked: no GPU is visible" in capsys.readouterr().err


def test_tests_sanitizer_and_both_benchmarks_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "sanitizer", lambda: "/opt/compute-sanitizer")
    steps = {step.name: step.command for step in gpu_check.plan(list(gpu_check.STEPS), tmp_path)}
    assert tuple(steps) == gpu_check.STEPS
    assert steps["tests"][-3:] == ("-m", "gpu", "tests")
    assert steps["sanitizer"][0] == "/opt/compute-sanitizer"
    for name, script in (("operators", "benchmark_ops.py"), ("model", "benchmark_model.py")):
        assert Path(steps[name][1]).name == script
        assert Path(steps[name][1]).is_file()
        assert steps[name][2:] == ("--device", "cuda", "--json", str(tmp_path / f"gpu_{name}.json"))


def test_the_tests_for_the_sanitizer_exist() -> None:
    source = (gpu_check.ROOT / "tests/layers/test_operators_cuda.py").read_text(encoding="utf-8")
    for part in gpu_check._SANITIZED_TESTS.split(" or "):
        assert part in source


def test_a_missing_sanitizer_is_said(
    with_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "sanitizer", lambda: None)
    assert gpu_check.main(["--only", "sanitizer"]) == 0
    assert "sanitizer: not run: compute-sanitizer is not installed" in capsys.readouterr().out


def test_a_failed_step_does_not_stop_the_others_and_fails_the_check(
    with_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def steps(names: list[str], folder: Path | None) -> list[gpu_check.Step]:
        statuses = {"tests": 3, "operators": 0}
        return [
            gpu_check.Step(name, (sys.executable, "-c", f"raise SystemExit({statuses[name]})"))
            for name in names
        ]

    monkeypatch.setattr(gpu_check, "plan", steps)
    assert gpu_check.main(["--only", "tests", "operators"]) == 1
    out = capsys.readouterr().out
    assert "gpu-check: tests: failed with exit status 3" in out
    assert "gpu-check: operators: passed" in out
