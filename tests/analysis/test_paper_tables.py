"""The page of the paper's tables is what its program writes, and its figures are those of today."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import make_paper_tables
from sparse_detr.analysis.paper_tables import check_figures, render_page
from sparse_detr.analysis.released_models import RELEASED_MODELS, parameter_figures

PAGE = make_paper_tables.PAGE


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(PAGE.with_suffix(".json").read_text("utf-8"))
    return stored


def test_the_page_is_what_the_program_writes(figures: dict[str, Any]) -> None:
    hint = "run: python tools/make_paper_tables.py --from-figures"
    assert PAGE.read_text("utf-8") == render_page(figures), hint


def test_the_parameters_of_the_page_are_those_of_the_models(figures: dict[str, Any]) -> None:
    for row, model in zip(RELEASED_MODELS, figures["models"], strict=True):
        assert model["config"] == row.config
        assert model["parameters"] == parameter_figures(row)


def test_every_row_of_the_page_is_as_the_release_prints_it(figures: dict[str, Any]) -> None:
    assert check_figures(figures) == []


def test_a_row_that_differs_is_named(figures: dict[str, Any]) -> None:
    wrong = copy.deepcopy(figures)
    wrong["models"][3]["released"]["800x1066"] += 1e8
    wrong["models"][8]["parameters"]["as_released"] += 10**5
    assert check_figures(wrong) == ["r50 rho 0.2", "swint dense, top-k queries"]


def test_gflops_rise_with_the_keeping_ratio_in_every_column(figures: dict[str, Any]) -> None:
    for start in (2, 9):  # the sparse rows of a backbone
        rows = figures["models"][start : start + 5]
        for convention in ("honest", "released", "released-as-built"):
            for key in ("800x1066", "850x1040", "mean"):
                totals = [row[convention][key] for row in rows]
                assert totals == sorted(set(totals))


def test_the_page_is_written_again_from_its_figures(
    figures: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "tables.md"
    assert make_paper_tables.main(["--from-figures", "--output", str(page)]) == 2
    assert "tables.json" in capsys.readouterr().err
    page.with_suffix(".json").write_text(json.dumps(figures))
    assert make_paper_tables.main(["--from-figures", "--output", str(page)]) == 0
    assert page.read_text("utf-8") == PAGE.read_text("utf-8")
