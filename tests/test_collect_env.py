"""The report on the machine: complete, and given even where everything is broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparse_detr import collect_env

PACKAGE_PARENT = Path(__file__).resolve().parents[1] / "projects" / "SparseDETR"


def test_reports_versions_and_the_state_of_the_operators() -> None:
    facts = dict(collect_env.collect_environment())
    assert torch.__version__ in facts["torch"]
    assert facts["operators on cpu"].startswith("deformable attention backend on cpu: ")
    assert facts["compiled operators"].startswith(("loaded", "not loaded: "))
    for name in ("python", "torchvision", "detectron2", "nvcc", "GPUs", "torch GPU architectures"):
        assert facts[name]


def test_prints_one_line_per_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert collect_env.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(collect_env.collect_environment())


def test_a_fact_that_cannot_be_found_out_is_reported_and_does_not_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> bool:
        raise RuntimeError("driver too old")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    facts = dict(collect_env.collect_environment())
    assert facts["GPUs"] == "unknown: RuntimeError: driver too old"
    assert facts["C++ compiler"] == "no-such-compiler not found"
    assert facts["torchvision"].startswith("unknown: ModuleNotFoundError")


def test_a_backend_that_does_not_exist_is_reported_too() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "sparse_detr.collect_env"],
        env={"PATH": "", "PYTHONPATH": str(PACKAGE_PARENT), "SPARSE_DETR_BACKEND": "quick"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "got 'quick', expected one of native, torch" in result.stdout
    assert "nvcc not found" in result.stdout
