"""AP of all systems after an equal small budget: finished runs read, and their part of the page.

Role: ``tools/make_comparison.py --small-budget`` reads folders that ``train_net.py`` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..benchmarking.tables import markdown_table
from ..config.loading import load_config
from ..engine.schedule import EpochSchedule, plan_iterations
from ..experiments.settings import DAM, KEEP_RATIOS, ExperimentSetting
from .compared_models import untrained_model
from .measured_systems import NOT_MEASURED, section
from .parameter_count import count_parameters

# Title of each run by the name of its folder; configs are experiments/shapes_<name>, and of Sparse
# DETR's rows experiments/shapes_dam with a keeping ratio.
SMALL_RUNS: Mapping[str, str] = {
    "detr": "DETR",
    "pnp_detr": "PnP-DETR",
    "smca": "SMCA, single scale",
    "smca_multi_scale": "SMCA, convolutions",
    "smca_multi_scale_reconstruction": "SMCA, reconstruction of the paper",
    "deformable_detr": "Deformable DETR",
    "dense": "Sparse DETR's dense twin",
    **{ExperimentSetting(DAM, rho).name: f"Sparse DETR, rho {rho:g}" for rho in KEEP_RATIOS},
    "dino": "DINO, 4 scales",
    "sparse_dino": "Sparse DETR on DINO",
    "focus_detr": "Focus-DETR on DINO",
}
_BBOX = "bbox"


def read_small_budget(folder: Path) -> dict[str, Any]:
    """Gives the results of finished runs: plain data, AP in per cent.

    A run without a folder is left out; the page says so.

    Args:
        folder: Has the output folder of each run, named as in :data:`SMALL_RUNS`.

    Raises:
        ValueError: There is no run, one is not finished, or the budgets differ.
    """
    names = [name for name in SMALL_RUNS if (folder / name).is_dir()]
    if not names:
        raise ValueError(
            f"{folder} has none of the runs {', '.join(SMALL_RUNS)}; expected the output folder "
            "of train_net.py under each name"
        )
    runs, budgets = [], {}
    for name in names:
        run, budgets[name] = _read_run(folder / name)
        runs.append({"name": name, **run})
    first = budgets[names[0]]
    for name, budget in budgets.items():
        differing = [key for key in first if first[key] != budget[key]]
        if differing:
            got = ", ".join(f"{key} {budget[key]} and {first[key]}" for key in differing)
            raise ValueError(f"the runs {name} and {names[0]} are not of one budget, got {got}")
    return {"budget": first, "runs": runs}


def _read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results and model of a run, and its budget."""
    config = load_config(folder / "config.yaml")
    batch = config.dataloader.train.total_batch_size
    planned = plan_iterations(
        EpochSchedule(**config.schedule), config.data.train_images, batch, config.train.max_iter
    ).max_iter
    done, results = _results(folder / "results.json")
    if done < planned:
        raise ValueError(
            f"the run in {folder} is not finished: evaluated after {done} of {planned} "
            "iterations; go on with train_net.py --resume"
        )
    try:
        parameters = count_parameters(untrained_model(config.model, "meta"))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"the model of the run in {folder} cannot be built; it may be of another version: "
            f"{error}"
        ) from error
    run = {
        "ap": results[_BBOX]["AP"],
        "ap50": results[_BBOX]["AP50"],
        "parameters": parameters.total,
        "queries": config.model.query_selection.num_queries,
        "keep_ratio": config.model.keep_ratio,
        "encoder_auxiliary": bool(config.model.heads.get("encoder_auxiliary", False)),
    }
    budget = {
        "iterations": done,
        "batch": batch,
        **{key: config.data[key] for key in ("train_images", "val_images", "image_size")},
        "seed": config.train.seed,
    }
    return run, budget


def _results(file: Path) -> tuple[int, Mapping[str, Any]]:
    """Iteration and results of the last evaluation; iteration 0 where there was none."""
    if not file.is_file():
        return 0, {}
    record = json.loads(file.read_text(encoding="utf-8"))
    if record["iteration"] is None or _BBOX not in record["results"]:
        raise ValueError(f"{file} has no iteration or no {_BBOX}: not of a run of train_net.py")
    return int(record["iteration"]), record["results"]


def small_budget_section(record: Mapping[str, Any] | None) -> str:
    """Gives the page's part on AP after an equal small budget.

    Args:
        record: What :func:`read_small_budget` gave; None where there are no runs.
    """
    heading = "## AP after an equal small budget"
    if record is None:
        return f"{heading}\n\n{NOT_MEASURED}"
    budget = record["budget"]
    passes = budget["iterations"] * budget["batch"] / budget["train_images"]
    size = budget["image_size"]
    text = (
        "Small models (`configs/experiments/shapes_*.py`) trained from scratch on drawn shapes: "
        f"{budget['iterations']} iterations of {budget['batch']} images, {passes:.3g}"
        f" passes over {budget['train_images']:,} images of {size} x {size}; AP in per cent on "
        f"{budget['val_images']} others. One run each, seed {budget['seed']}: differences of a few "
        "points may be the seed's. All have the same backbone, schedule and learning rates, which "
        f"were set for Sparse DETR. {passes:.3g} passes favour systems that learn fast; this says "
        "nothing about AP on COCO, nor about where a system ends after long training."
    )
    header = ["model", "AP", "AP50", "parameters", "queries", "keeping ratio",
              "encoder's auxiliary heads", "iterations"]  # fmt: skip
    runs = {run["name"]: run for run in record["runs"]}
    rows = []
    for name, title in SMALL_RUNS.items():
        run = runs.get(name)
        if run is None:
            rows.append([title, "not run yet", *["-"] * (len(header) - 2)])
            continue
        ratio = run["keep_ratio"]
        rows.append([
            title, _per_cent(run["ap"]), _per_cent(run["ap50"]), f"{run['parameters']:,}",
            str(run["queries"]), "-" if ratio is None else str(ratio),
            "yes" if run["encoder_auxiliary"] else "no", str(budget["iterations"]),
        ])  # fmt: skip
    return section(heading, text, table=markdown_table(header, rows))


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
