"""Times whole detectors: ours, optimised, the released way of computing, and outside ones.

    python tools/benchmark_model.py --threads 2 --json model.json
    python tools/benchmark_model.py --threads 2 --keep-ratios 0.1 0.2 0.3 0.4 0.5 dense
    python tools/benchmark_model.py --training --size 640x640 --batch 2 --no-times
    python tools/benchmark_model.py --show model.json --markdown

All ways of a setting run interleaved, on the same random weights and images; blocks that other
programs disturbed are repeated. The released way of computing is this model with each step done as
the released code does it without its CUDA operator, and gives the same predictions, which is
checked. The detectors of the transformers package take part where it is installed
(pip install transformers). See docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sparse_detr.benchmarking.disturbance import DisturbanceWatch
from sparse_detr.benchmarking.fresh_process import FreshProcessError, call_in_fresh_process
from sparse_detr.benchmarking.machine import describe_machine
from sparse_detr.benchmarking.model_report import measure_ways
from sparse_detr.benchmarking.model_tables import (
    agreement_table,
    aims_table,
    memory_table,
    setting_name,
    stages_table,
    training_table,
    ways_table,
)
from sparse_detr.benchmarking.model_ways import (
    OPTIMISED,
    OPTIMISED_BF16_BACKBONE,
    OURS,
    RELEASED,
    WAYS,
    Setting,
)
from sparse_detr.benchmarking.outside_models import DEFORMABLE_DETR, RT_DETR
from sparse_detr.benchmarking.peak_memory import LIVE_MEMORY
from sparse_detr.benchmarking.report_files import (
    note_stop,
    print_headings,
    save_report,
    was_stopped,
)
from sparse_detr.benchmarking.timing import TimingPlan
from sparse_detr.engine.tool_program import check_numbers

_REPORT = "sparse_detr.benchmarking.model_report"
_SHORT_NAMES = {
    "ours": OURS,
    "optimised": OPTIMISED,
    "bf16-backbone": OPTIMISED_BF16_BACKBONE,
    "bf16": WAYS[3],
    "released": RELEASED,
    "transformers-deformable-detr": DEFORMABLE_DETR,
    "transformers-rt-detr": RT_DETR,
}
_DENSE = "dense"


def image_size(text: str) -> tuple[int, int]:
    """Gives (height, width) from "480x640"."""
    try:
        height, width = (int(part) for part in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, got {text!r}") from None
    if min(height, width) < 64:
        raise argparse.ArgumentTypeError(f"expected at least 64 x 64 pixels, got {text!r}")
    return height, width


def keep_ratio(text: str) -> float | None:
    """Gives a ratio in (0, 1], or None from "dense"."""
    if text == _DENSE:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1] or {_DENSE}, got {text!r}")
    return value


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Gives the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu", help="device to run on (default: cpu)")
    add("--threads", type=int, help="CPU threads (default: as torch is set)")
    add("--size", type=image_size, default=(480, 640), help="of the images (default: 480x640)")
    add("--batch", type=int, nargs="+", default=[1], help="images per call (default: 1)")
    add("--keep-ratios", type=keep_ratio, nargs="+", default=[0.1], metavar="RHO",
        help=f"shares of updated tokens, or {_DENSE} (default: 0.1)")  # fmt: skip
    add("--backbone", choices=("r50", "swint"), default="r50", help="backbone (default: r50)")
    add("--ways", nargs="+", choices=_SHORT_NAMES, default=list(_SHORT_NAMES), metavar="WAY",
        help=f"what to compare (default: {', '.join(_SHORT_NAMES)})")  # fmt: skip
    add("--rounds", type=int, default=9, help="rounds that count (default: 9)")
    add("--block-seconds", type=float, default=0.3, help="least length of a block (default: 0.3)")
    add("--patience", type=float, default=30.0, metavar="SECONDS",
        help="how long each setting may wait for others to be quiet (default: 30)")  # fmt: skip
    add("--no-times", action="store_true", help="leave the times out")
    add("--no-stages", action="store_true", help="leave the stages out")
    add("--memory", action="store_true", help="also measure peak memory of inference")
    add("--training", action="store_true", help="also measure peak memory of a training step")
    add("--json", type=Path, help="file to write all measurements to")
    add("--show", type=Path, nargs="+", metavar="FILE",
        help="measure nothing: print the tables of such files")  # fmt: skip
    add("--markdown", action="store_true", help="print the tables in Markdown")
    options = parser.parse_args(arguments)
    check_numbers(parser, options, threads=1, rounds=1)
    return options


def settings(options: argparse.Namespace) -> Iterator[Setting]:
    """Gives the settings that were asked for."""
    height, width = options.size
    for batch in options.batch:
        for ratio in options.keep_ratios:
            yield Setting(height, width, batch, ratio, options.backbone, options.device)


def measure_times(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Gives a record for each setting."""
    plan = TimingPlan(
        rounds=options.rounds,
        block_seconds=options.block_seconds,
        warmup_calls=2,
        warmup_seconds=2.0,
        patience_seconds=options.patience,
    )
    names = [_SHORT_NAMES[way] for way in options.ways]
    for setting in settings(options):
        yield measure_ways(setting, names, plan, not options.no_stages)


def measure_memory(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Gives the peak memory of inference for each setting and way."""
    for setting in settings(options):
        for way in options.ways:
            name = _SHORT_NAMES[way]
            case = {"setting": asdict(setting), "name": name, "threads": options.threads}
            record = call_in_fresh_process(f"{_REPORT}:inference_peak", case, LIVE_MEMORY)
            yield {"setting": asdict(setting), "way": name, **record}


def measure_training(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Gives the peak memory of a training step for each setting, ours and the released way."""
    for setting in settings(options):
        record: dict[str, Any] = {"setting": asdict(setting)}
        for name, released in (("ours", False), ("released", True)):
            case = {"setting": asdict(setting), "released": released, "threads": options.threads}
            function = f"{_REPORT}:training_step_peak"
            record[name] = call_in_fresh_process(function, case, LIVE_MEMORY)
            # What the process grows by when nothing is set.
            default = call_in_fresh_process(function, case)
            record[name]["default_allocator_peak_bytes"] = default["peak_bytes"]
        yield record


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Gives all measurements."""
    device = torch.device(options.device)
    report: dict[str, Any] = {
        "machine": describe_machine(device),
        "notes": [DisturbanceWatch.of_this_machine(torch.get_num_threads()).note],
        "runs": [],
        "memory": [],
        "training": [],
    }
    for part, wanted, measure in (
        ("runs", not options.no_times, measure_times),
        ("memory", options.memory, measure_memory),
        ("training", options.training, measure_training),
    ):
        try:
            for record in measure(options) if wanted else ():
                name = setting_name(record["setting"])
                print(f"measured {part}: {name}", file=sys.stderr, flush=True)
                report["notes"] += [
                    n for n in record.get("missing", []) if n not in report["notes"]
                ]
                report[part].append(record)
                save_report(report, options.json)
        except FreshProcessError as error:
            note_stop(report, error)
    return report


def show(reports: list[dict[str, Any]], markdown: bool) -> None:
    """Prints the tables of one or more reports."""
    print_headings(reports, markdown)
    runs, memory, training = (
        [record for report in reports for record in report[part]]
        for part in ("runs", "memory", "training")
    )
    tables = []
    if runs:
        tables += [
            ways_table(runs, markdown),
            agreement_table(runs, markdown),
            stages_table(runs, markdown),
            aims_table(runs, markdown),
        ]
    tables += [memory_table(memory, markdown), training_table(training, markdown)]
    print("\n\n".join(filter(None, tables)))


def main(arguments: list[str] | None = None) -> int:
    """Measures or shows; gives 1 where a measurement failed or predictions disagree."""
    options = parse_arguments(arguments)
    if options.show:
        show([json.loads(file.read_text()) for file in options.show], options.markdown)
        return 0
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    report = run(options)
    save_report(report, options.json)
    show([report], options.markdown)
    exact = [run["agreement"].get(way) for run in report["runs"] for way in (OURS, OPTIMISED)]
    if any(found is not None and not found["holds"] for found in exact):
        print("predictions differ from the released way by more than 1e-5", file=sys.stderr)
        return 1
    return 1 if was_stopped(report) else 0


if __name__ == "__main__":
    sys.exit(main())
