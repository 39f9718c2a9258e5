#!/usr/bin/env python3
"""Evaluates one checkpoint over a list of keeping ratios: AP, GFLOPs, time, kept tokens, Corr.

Writes sweep.json, sweep.md (a table) and sweep.png (the paper's Figure 7). Every ratio is stored as
soon as it is measured; the same command again goes on where it stopped. The last point is the
dense encoder with the same weights. Exit status: 0 done, 2 when the input has to be corrected (the
message says what).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from sparse_detr.engine.tool_program import (
    add_device_option,
    check_numbers,
    output_folder,
    run_tool,
    tool_parser,
)

DEFAULT_RATIOS = ("0.05", "0.1", "0.2", "0.3", "0.4", "0.5", "0.7")
PRECISIONS = ("exact", "bfloat16-backbone", "bfloat16")

EXAMPLES = """
examples:
  a finished run over the usual ratios
    sweep_keep_ratio.py --config-file output/quickstart/config.yaml
  other ratios, levels and layers with ratios of their own, a share of the score mass per image
    sweep_keep_ratio.py --config-file sparse_detr/sparse_detr_r50_rho10_50ep --weights model.pth \\
        --num-images 500 --keep-ratios 0.1 0.3 levels:0.1,0.3,0.5,1 mass:0.9
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = tool_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE_OR_NAME", help="the config")
    add("--weights", metavar="FILE",
        help="checkpoint; default: train.init_checkpoint=FILE of this command line, else the last "
        "one in train.output_dir, else train.init_checkpoint of the config")  # fmt: skip
    add("--keep-ratios", nargs="+", default=list(DEFAULT_RATIOS), metavar="RHO",
        help=f"in any form that model.keep_ratio takes (default: {' '.join(DEFAULT_RATIOS)}); the "
        "dense encoder comes last by itself")  # fmt: skip
    add("--num-images", type=int, metavar="N", help="evaluate the first N images (default: all)")
    add("--output", metavar="FOLDER", help="default: the folder 'sweep' in train.output_dir")
    add("--restart", action="store_true", help="forget what the folder holds")
    add("--optimize", choices=PRECISIONS, metavar="PRECISION",
        help="optimise the detector first: exact, bfloat16-backbone or bfloat16")  # fmt: skip
    add("--latency-images", type=int, default=10, metavar="N",
        help="time N images, 0 for none (default: 10)")  # fmt: skip
    add_device_option(add)
    add("--threads", type=int, metavar="N", help="CPU threads (default: as torch is set)")
    add("overrides", nargs="*", metavar="key=value", help="changes to the config")
    options = parser.parse_intermixed_args(arguments)
    check_numbers(parser, options, num_images=1, latency_images=0, threads=1)
    return options


def open_sweep(options: argparse.Namespace, output: Path, config: Any) -> Any:
    """Gives the sweep of the command line, with what its file already holds."""
    from sparse_detr.engine.checkpoint_file import file_digest
    from sparse_detr.evaluation.checkpoint_evaluation import CheckpointEvaluation
    from sparse_detr.evaluation.keep_ratio_sweep import KeepRatioSweep
    from sparse_detr.inference.config_reading import weights_file

    weights = str(weights_file(config, options.weights, options.overrides, untrained=None))
    evaluation = CheckpointEvaluation(config, weights, output, options.num_images, options.optimize)
    settings = {
        "config": options.config_file,
        "overrides": sorted(options.overrides),
        "weights": Path(weights).name,
        "weights_sha256": file_digest(Path(weights)),
        "data_set": evaluation.dataset_name,
        "num_images": evaluation.num_images,
        "optimize": options.optimize,
    }
    file = output / "sweep.json"
    if options.restart:
        file.unlink(missing_ok=True)
    return KeepRatioSweep(evaluation, file, settings)


def run(options: argparse.Namespace) -> None:
    """Measures what is missing, writes the results and says where they are."""
    import torch

    from sparse_detr.benchmarking.timing import TimingPlan
    from sparse_detr.evaluation.keep_ratio_sweep import ratios_to_sweep
    from sparse_detr.evaluation.sweep_report import sweep_page, sweep_table
    from sparse_detr.inference.config_reading import run_config

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    show_progress()
    config = run_config(options.config_file, options.overrides, options.device)
    output = output_folder(options.output, config.train.output_dir, "sweep")
    sweep = open_sweep(options, output, config)
    ratios = ratios_to_sweep(options.keep_ratios, sweep.evaluation.model)
    print(f"{len(ratios)} keeping ratios over {sweep.evaluation.num_images} images", flush=True)
    for number, ratio in enumerate(ratios, start=1):
        known = sweep.is_measured(ratio)
        if not known:
            with redirect_stdout(io.StringIO()):  # where pycocotools talks
                sweep.measure(ratio)
        print(f"[{number}/{len(ratios)}] {ratio}: {summary(sweep, ratio, known)}", flush=True)
    wanted = options.latency_images
    if wanted and not sweep.has_latency(ratios, wanted):
        print(f"Timing {wanted} images with all ratios in turn", flush=True)
        plan = TimingPlan(rounds=3, block_seconds=0.05, warmup_calls=2, patience_seconds=2.0)
        sweep.measure_latency(ratios, wanted, plan)
    write_results(sweep.report, output, sweep_page(sweep.report, "sweep.png"))
    print(sweep_table(sweep.report, markdown=False))
    print(f"Table, plot and measurements are in {output}")


def show_progress() -> None:
    """Lets an evaluation that takes long say how far it is, on stderr."""
    progress = logging.getLogger("detectron2.evaluation.evaluator")
    if not progress.handlers:
        progress.addHandler(logging.StreamHandler())
        progress.setLevel(logging.INFO)


def summary(sweep: Any, ratio: Any, known: bool) -> str:
    """Gives one line about a measured ratio."""
    point = sweep.report["points"][str(ratio)]
    precision, corr = point["bbox"].get("AP"), point["sparsity"].get("corr")
    parts = [f"{name} {value:.{digits}f}" for name, value, digits in (
        ("AP", precision, 1), ("Corr", corr, 3), ("GFLOPs", (point["gflops"] or {}).get("mean"), 2)
    ) if value is not None]  # fmt: skip
    return ", ".join(parts) + (" (measured before)" if known else "")


def write_results(report: dict[str, Any], output: Path, page: str) -> None:
    """Writes the page and the plot beside the measurements."""
    from sparse_detr.evaluation.sweep_report import ordered_points
    from sparse_detr.visualization.sweep_curves import draw_sweep

    (output / "sweep.md").write_text(page, encoding="utf-8")
    draw_sweep(ordered_points(json.loads(json.dumps(report))), output / "sweep.png")


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after the sweep."""
    options = parse_arguments(arguments)
    return run_tool(lambda: run(options), "interrupted; the same command goes on where it stopped")


if __name__ == "__main__":
    sys.exit(main())
