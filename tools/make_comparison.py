#!/usr/bin/env python3
"""Counts the models of all systems and writes docs/comparison.md: published, released and here.

Latency, memory of a training step and results of small training runs are put in by options of
their own, then nothing is counted. All figures are kept as JSON beside the page. Exit status: 0
done, 1 a row is not as counted on the released code or a measurement failed, 2 when the input has
to be corrected (the message says what).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparse_detr.engine.tool_program import check_numbers, tool_parser

PAGE = Path(__file__).resolve().parents[1] / "docs" / "comparison.md"
EXAMPLES = """
examples:
  latency on this machine, which nobody else should use meanwhile (some minutes, some 12 GB)
    make_comparison.py --latency
  memory of a training step, and the results of runs in output/small_budget/{detr,dense,...}
    make_comparison.py --training-memory --small-budget output/small_budget
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = tool_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("--from-figures", action="store_true",
        help="count nothing: write the page from the JSON beside it")  # fmt: skip
    add("--latency", action="store_true", help="measure the latency of all systems")
    add("--training-memory", action="store_true", help="measure the memory of a training step")
    add("--small-budget", type=Path, metavar="FOLDER",
        help="read finished training runs on the drawn shapes, FOLDER/<name> of each")  # fmt: skip
    add("--threads", type=int, default=2, metavar="N", help="CPU threads (default: 2)")
    add("--rounds", type=int, default=5, metavar="N", help="of the latency (default: 5)")
    add("--block-seconds", type=float, default=0.3, metavar="SECONDS",
        help="least length of a block of the latency (default: 0.3)")  # fmt: skip
    add("--patience", type=float, default=60.0, metavar="SECONDS",
        help="how long the latency may wait for others to be quiet (default: 60)")  # fmt: skip
    add("--output", type=Path, default=PAGE, metavar="FILE", help=f"default: docs/{PAGE.name}")
    options = parser.parse_args(arguments)
    check_numbers(parser, options, threads=1, rounds=1)
    if options.from_figures and (
        options.latency or options.training_memory or options.small_budget
    ):
        parser.error("--from-figures measures and reads nothing; leave it or the others out")
    return options


def measurements(options: argparse.Namespace) -> list[Callable[[], dict[str, Any]]]:
    """Gives what was asked for, each under its own key of the figures."""
    import torch

    from sparse_detr.analysis.comparison_page import LATENCY, SMALL_BUDGET, TRAINING_MEMORY
    from sparse_detr.analysis.counted_page import tell
    from sparse_detr.analysis.measured_systems import (
        REFERENCE,
        latency_settings,
        training_settings,
    )
    from sparse_detr.analysis.small_budget import read_small_budget
    from sparse_detr.benchmarking.compared_systems import measure_latency, measure_training_memory
    from sparse_detr.benchmarking.timing import TimingPlan

    def small_budget() -> dict[str, Any]:
        return {SMALL_BUDGET: read_small_budget(options.small_budget)}

    def training_memory() -> dict[str, Any]:
        return {
            TRAINING_MEMORY: measure_training_memory(training_settings(), options.threads, tell)
        }

    def latency() -> dict[str, Any]:
        torch.set_num_threads(options.threads)
        plan = TimingPlan(
            rounds=options.rounds, block_seconds=options.block_seconds, warmup_calls=2,
            warmup_seconds=2.0, patience_seconds=options.patience,
        )  # fmt: skip
        return {LATENCY: measure_latency(latency_settings(), REFERENCE, plan, tell)}

    wanted = (
        (options.small_budget, small_budget),
        (options.training_memory, training_memory),
        (options.latency, latency),
    )
    return [measure for asked, measure in wanted if asked]


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after writing the page."""
    options = parse_arguments(arguments)
    from sparse_detr.analysis.compared_models import count_compared_models
    from sparse_detr.analysis.comparison_page import MODELS, differing_rows, render_comparison
    from sparse_detr.analysis.counted_page import CountedPage, tell

    page = CountedPage(render_comparison, differing_rows, "not as counted on the released code")
    if options.from_figures:
        return page.write(options.output, None)
    wanted = measurements(options)
    if not wanted:
        wanted = [lambda: {MODELS: count_compared_models(tell=tell)}]
    # The page after each: what was measured is kept though the next one fails.
    return max(page.write(options.output, measure) for measure in wanted)


if __name__ == "__main__":
    sys.exit(main())
