from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import benchmark_ops
from sparse_detr.benchmarking.fresh_process import FreshProcessError


@pytest.fixture
def fake_records(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Measurements that take no time; gives the arguments they were asked for."""
    asked: list[dict[str, Any]] = []

    def measured(**arguments: Any) -> dict[str, Any]:
        asked.append(arguments)
        spread = {"median": 1.0, "smallest": 1.0, "largest": 1.0, "count": 2}
        ours = {
            "ms": spread,
            "ours_is_faster": None,
            "calls_per_block": 1,
            "rejected_blocks": 0,
            "disturbed_blocks": 0,
            "page_faults": [0.0, 0.0],
            "seconds": [0.001, 0.001],
        }
        return {
            "operator": arguments["operator"],
            "queries": arguments["queries"],
            "direction": "forward + backward" if arguments["backward"] else "forward",
            "device": "cpu",
            "dtype": "float32",
            "threads": 1,
            "baseline": "other",
            "candidates": {"ours": ours, "other": {**ours, "ours_is_faster": spread}},
            "gathered_bytes": 0,
        }

    def in_fresh_process(function: str, arguments: dict[str, Any], environment: Any) -> Any:
        asked.append({**arguments, "environment": environment})
        if function.endswith(":measure_peak"):
            return {"peak_bytes": 11, "result_bytes": 10}
        return measured(**arguments)

    monkeypatch.setattr(benchmark_ops, "measure_operator", measured)
    monkeypatch.setattr(benchmark_ops, "call_in_fresh_process", in_fresh_process)
    monkeypatch.setattr(benchmark_ops, "backend_for", lambda device: "native")
    return asked


@pytest.mark.parametrize("option", ["--processes", "--rounds", "--threads"])
def test_a_number_that_is_too_small_is_refused(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark_ops.parse_arguments([option, "-1"])
    assert f"{option} is -1, expected" in capsys.readouterr().err


def test_only_what_is_asked_for_is_measured(
    fake_records: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--no-rates", "--no-memory", "--queries", "300", "--direction", "forward"]
    arguments += ["--operators", "ms_deform_attn", "--processes", "0"]
    assert benchmark_ops.main(arguments) == 0

    assert [(a["operator"], a["queries"], a["backward"]) for a in fake_records] == [
        ("ms_deform_attn", "300", False)
    ]
    assert "ms_deform_attn, 300 queries, forward" in capsys.readouterr().out


@pytest.mark.parametrize(("processes", "count"), [("0", 1), ("2", 2)])
def test_each_instruction_set_runs_in_processes_that_are_told_so(
    fake_records: list[dict[str, Any]], processes: str, count: int
) -> None:
    arguments = ["--no-rates", "--no-memory", "--queries", "300", "--direction", "forward"]
    arguments += ["--operators", "ms_deform_attn", "--capability", "avx2", "baseline"]
    assert benchmark_ops.main([*arguments, "--processes", processes]) == 0

    environments = [a["environment"] for a in fake_records if "environment" in a]
    avx2, baseline = ({"SPARSE_DETR_CPU_CAPABILITY": name} for name in ("avx2", "baseline"))
    assert environments == [avx2] * count + [baseline] * count


def test_on_a_cpu_the_rounds_of_several_processes_are_put_together(
    fake_records: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--no-rates", "--no-memory", "--queries", "300", "--direction", "forward"]
    assert benchmark_ops.main([*arguments, "--operators", "ms_deform_attn"]) == 0

    assert [a["environment"] for a in fake_records if "environment" in a] == [{}] * 3
    assert "6 x 1" in capsys.readouterr().out  # two rounds each


def test_what_was_written_can_be_shown_again(
    fake_records: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ops.json"
    assert benchmark_ops.main(["--no-rates", "--queries", "tenth", "--json", str(file)]) == 0
    assert len(json.loads(file.read_text())["memory"]) > 0
    capsys.readouterr()
    assert benchmark_ops.main(["--show", str(file), "--markdown"]) == 0

    assert "| sample_then_project, 10 % of the tokens, on objects" in capsys.readouterr().out


def test_a_failed_process_ends_with_an_error_and_keeps_what_there_is(
    fake_records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> Any:
        raise FreshProcessError("out of memory")

    monkeypatch.setattr(benchmark_ops, "call_in_fresh_process", failing)
    file = tmp_path / "ops.json"
    arguments = ["--no-rates", "--processes", "0", "--queries", "300", "--json", str(file)]
    assert benchmark_ops.main(arguments) == 1

    report = json.loads(file.read_text())
    assert report["operators"]
    assert "stopped: out of memory" in report["notes"]


def test_without_compiled_operators_there_is_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark_ops, "backend_for", lambda device: "torch")

    assert benchmark_ops.main([]) == 1
    assert "build the extension first" in capsys.readouterr().err
