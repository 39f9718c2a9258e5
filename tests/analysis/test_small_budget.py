"""Results of small training runs are read as the training program leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comparison_records import ITERATIONS, write_run
from detectron2.config import instantiate

from sparse_detr.analysis.measured_systems import NOT_MEASURED
from sparse_detr.analysis.small_budget import SMALL_RUNS, read_small_budget, small_budget_section
from sparse_detr.config.loading import load_config


def test_every_run_has_a_config() -> None:
    for name in SMALL_RUNS:
        config = load_config(f"experiments/shapes_{'dam' if name.startswith('dam') else name}")
        assert config.schedule.epochs == 1.5
        assert config.data.train_images == 5000


def test_finished_runs_give_results_model_and_budget(tmp_path: Path) -> None:
    for name in ("dam_rho10", "dense", "dino"):
        write_run(tmp_path, name)
    record = read_small_budget(tmp_path)
    assert json.loads(json.dumps(record)) == record
    assert record["budget"] == {
        "iterations": ITERATIONS, "batch": 8, "train_images": 5000, "val_images": 200,
        "image_size": 160, "seed": 42,
    }  # fmt: skip
    assert [run["name"] for run in record["runs"]] == ["dense", "dam_rho10", "dino"]
    config = load_config("experiments/shapes_dense").model
    config.num_classes = 6
    assert record["runs"][0] == {
        "name": "dense", "ap": 41.234, "ap50": 60.0, "queries": 50, "keep_ratio": None,
        "parameters": sum(p.numel() for p in instantiate(config).parameters()),
        "encoder_auxiliary": False,
    }  # fmt: skip
    assert record["runs"][1]["keep_ratio"] == 0.1
    assert record["runs"][1]["encoder_auxiliary"]


def test_the_page_shows_the_runs_and_which_are_not_there(tmp_path: Path) -> None:
    write_run(tmp_path, "dam_rho30")
    record = read_small_budget(tmp_path)
    record["runs"][0]["ap50"] = None  # as an evaluation without it
    section = " ".join(small_budget_section(record).split("\n"))
    assert "938 iterations of 8 images, 1.5 passes over 5,000 images of 160 x 160" in section
    assert "nothing about AP on COCO" in section
    parameters = f"{record['runs'][0]['parameters']:,}"
    assert f"| Sparse DETR, rho 0.3 | 41.2 | - | {parameters} | 50 | 0.3 | yes | 938 |" in section
    assert section.count("not run yet") == len(SMALL_RUNS) - 1
    assert NOT_MEASURED not in section
    assert NOT_MEASURED in small_budget_section(None)


@pytest.mark.parametrize(("iteration", "done"), [(None, 0), (500, 500)])
def test_a_run_that_is_not_finished_is_refused(
    tmp_path: Path, iteration: int | None, done: int
) -> None:
    write_run(tmp_path, "dense", iteration)
    with pytest.raises(ValueError, match=f"dense is not finished: evaluated after {done} of 938"):
        read_small_budget(tmp_path)


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="none of the runs detr, "):
            read_small_budget(folder)


def test_runs_of_unequal_budgets_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "dense")
    write_run(tmp_path, "detr", ITERATIONS, "train.seed=7")
    with pytest.raises(
        ValueError, match=r"dense and detr are not of one budget, got seed 42 and 7"
    ):
        read_small_budget(tmp_path)


def test_a_run_without_its_config_or_boxes_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, "dense")
    (run / "results.json").write_text('{"iteration": null, "results": {}}')
    with pytest.raises(ValueError, match="not of a run"):
        read_small_budget(tmp_path)
    (run / "config.yaml").unlink()
    with pytest.raises(ValueError, match="does not exist"):
        read_small_budget(tmp_path)


def test_a_run_of_another_version_is_refused_with_the_reason(tmp_path: Path) -> None:
    write_run(tmp_path, "dense", ITERATIONS, "+model.criterion.matcher.alpha=0.25")
    with pytest.raises(ValueError, match=r"may be of another version: .*'alpha'"):
        read_small_budget(tmp_path)
