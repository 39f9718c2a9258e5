"""The page of all systems is what its program writes, and its figures are those of today."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison_records import latency, training_memory, write_run

import make_comparison
from sparse_detr.analysis import compared_models
from sparse_detr.analysis.compared_models import COMPARED_MODELS, compared_parameters
from sparse_detr.analysis.comparison_page import differing_rows, render_comparison
from sparse_detr.analysis.measured_systems import NOT_MEASURED
from sparse_detr.analysis.small_budget import read_small_budget
from sparse_detr.benchmarking import compared_systems
from sparse_detr.benchmarking.fresh_process import FreshProcessError
from sparse_detr.benchmarking.timing import TimingPlan

PAGE = make_comparison.PAGE


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(PAGE.with_suffix(".json").read_text("utf-8"))
    return stored


def test_the_page_is_what_the_program_writes(figures: dict[str, Any]) -> None:
    hint = "run: python tools/make_comparison.py --from-figures"
    assert PAGE.read_text("utf-8") == render_comparison(figures), hint


def test_the_parameters_of_the_page_are_those_of_the_models(figures: dict[str, Any]) -> None:
    for row, model in zip(COMPARED_MODELS, figures["models"], strict=True):
        assert (model["title"], model["config"]) == (row.title, row.config)
        assert model["parameters"] == compared_parameters(row)


def test_every_row_of_the_page_is_as_counted_on_the_released_code(figures: dict[str, Any]) -> None:
    assert differing_rows(figures) == []


def test_a_row_that_differs_is_named(figures: dict[str, Any]) -> None:
    wrong = copy.deepcopy(figures)
    wrong["models"][0]["parameters"][1] += 1
    wrong["models"][2]["released"]["850x1040"] += 2e7
    assert differing_rows(wrong) == ["DETR, 500 epochs", "DETR-DC5"]


def paragraph_of(page: str) -> str:
    """The paragraph on what has not been measured, in one line."""
    [found] = [text for text in page.split("\n\n") if text.startswith("**Not measured yet**")]
    return " ".join(found.split("\n"))


def test_the_page_names_what_has_not_been_measured_and_shows_what_has(
    figures: dict[str, Any], tmp_path: Path
) -> None:
    counted = {"models": figures["models"]}
    page = render_comparison(counted)
    assert page.count(NOT_MEASURED) == 3
    missing = paragraph_of(page)
    assert all(word in missing for word in ("latency", "training step", "small budget"))
    header = next(line for line in page.splitlines() if line.startswith("| model"))
    assert not any(word in header for word in ("latency", "memory", "shapes"))
    page = render_comparison({**counted, "latency": latency("A system")})
    assert "| A system |" in page and page.count(NOT_MEASURED) == 2
    assert "latency" not in paragraph_of(page)
    budget = read_small_budget(write_run(tmp_path, "dense").parent)
    whole = {**counted, "latency": latency(), "training_memory": training_memory()}
    page = render_comparison({**whole, "small_budget": budget})
    assert "ot measured yet" not in page


def test_the_page_is_written_again_from_its_figures(
    figures: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "comparison.md"
    assert make_comparison.main(["--from-figures", "--output", str(page)]) == 2
    assert "comparison.json" in capsys.readouterr().err
    page.with_suffix(".json").write_text(json.dumps(figures))
    assert make_comparison.main(["--from-figures", "--output", str(page)]) == 0
    assert page.read_text("utf-8") == PAGE.read_text("utf-8")


def stored(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.with_suffix(".json").read_text("utf-8"))
    return found


def test_what_is_measured_later_leaves_the_other_figures_and_counts_nothing(
    figures: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "comparison.md"
    page.with_suffix(".json").write_text(json.dumps({"models": figures["models"]}))
    monkeypatch.setattr(compared_models, "count_compared_models", None)
    asked: list[Any] = []

    def measured_latency(settings: Any, reference: str, plan: TimingPlan, tell: Any) -> Any:
        asked.append((len(settings), plan.rounds))
        return latency("A system")

    def measured_memory(settings: Any, threads: int, tell: Any) -> Any:
        asked.append((len(settings), threads))
        return training_memory("Another system")

    monkeypatch.setattr(compared_systems, "measure_latency", measured_latency)
    monkeypatch.setattr(compared_systems, "measure_training_memory", measured_memory)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    output = ["--output", str(page)]
    assert make_comparison.main(["--latency", "--rounds", "4", "--threads", "3", *output]) == 0
    assert asked == [3, (23, 4)]
    assert "| A system |" in page.read_text("utf-8")
    assert make_comparison.main(["--training-memory", *output]) == 0
    assert asked[2:] == [(23, 2)]
    write_run(tmp_path, "dense")
    assert make_comparison.main(["--small-budget", str(tmp_path), *output]) == 0
    assert list(stored(page)) == ["models", "latency", "training_memory", "small_budget"]
    assert stored(page)["models"] == figures["models"]
    text = page.read_text("utf-8")
    assert "| A system |" in text and "| Another system |" in text
    assert "| Sparse DETR's dense twin | 41.2 | 60.0 |" in text


def test_what_cannot_be_measured_or_read_leaves_figures_and_page_as_they_are(
    figures: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "comparison.md"
    page.with_suffix(".json").write_text(json.dumps(figures))

    def fail(*arguments: Any) -> None:
        raise FreshProcessError("a step failed")

    monkeypatch.setattr(compared_systems, "measure_training_memory", fail)
    output = ["--output", str(page)]
    assert make_comparison.main(["--training-memory", *output]) == 1
    assert "a step failed" in capsys.readouterr().err
    missing = str(tmp_path / "none")
    assert make_comparison.main(["--small-budget", missing, *output]) == 2
    assert "none of the runs" in capsys.readouterr().err
    assert stored(page) == figures and not page.exists()


def test_nothing_is_written_where_the_models_have_not_been_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "comparison.md"
    page.with_suffix(".json").write_text("{}")
    assert make_comparison.main(["--from-figures", "--output", str(page)]) == 2
    assert "have not been counted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--rounds", "0"], ["--threads", "0"], ["--from-figures", "--latency"],
     ["--from-figures", "--small-budget", "x"]],
)  # fmt: skip
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        make_comparison.main(arguments)
