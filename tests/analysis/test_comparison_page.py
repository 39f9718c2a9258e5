"""The page of all systems is what its program writes, and its figures are those of today."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import make_comparison
from sparse_detr.analysis.compared_models import COMPARED_MODELS, compared_parameters
from sparse_detr.analysis.comparison_page import differing_rows, render_comparison

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


def test_the_page_names_what_has_not_been_measured_and_has_no_column_for_it() -> None:
    page = PAGE.read_text("utf-8")
    header = next(line for line in page.splitlines() if line.startswith("| model"))
    assert "**Not measured yet**" in page
    assert not any(word in header for word in ("latency", "memory", "shapes"))


def test_the_page_is_written_again_from_its_figures(
    figures: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "comparison.md"
    assert make_comparison.main(["--from-figures", "--output", str(page)]) == 2
    assert "comparison.json" in capsys.readouterr().err
    page.with_suffix(".json").write_text(json.dumps(figures))
    assert make_comparison.main(["--from-figures", "--output", str(page)]) == 0
    assert page.read_text("utf-8") == PAGE.read_text("utf-8")
