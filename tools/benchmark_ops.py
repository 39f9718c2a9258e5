"""Times the operators against the ways to do without them, side by side in one run.

    python tools/benchmark_ops.py --threads 2 --json ops.json
    python tools/benchmark_ops.py --threads 2 --capability avx2 --operators ms_deform_attn
    python tools/benchmark_ops.py --device cuda --dtype bfloat16
    python tools/benchmark_ops.py --show ops.json more.json --markdown

All ways of a case are called in turn, block after block; blocks that other programs disturbed are
repeated; a ratio is the median of the rounds' ratios. On a CPU each case runs in several processes,
for where its memory lies changes the times of a process from first to last. Packages with an
attention of their own (transformers, mmcv) take part where they can be imported. See
docs/performance.md.
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
from sparse_detr.benchmarking.machine import cpu_capability, describe_machine
from sparse_detr.benchmarking.memory_rates import measure_memory_rates
from sparse_detr.benchmarking.operator_cases import OPERATORS, OURS
from sparse_detr.benchmarking.operator_inputs import QUERY_SETS
from sparse_detr.benchmarking.operator_peers import installed_peers
from sparse_detr.benchmarking.operator_report import (
    FORWARD,
    MEASURED,
    WITH_BACKWARD,
    directions,
    measure_operator,
    pool_processes,
    timer_for,
)
from sparse_detr.benchmarking.operator_tables import (
    aims_table,
    kernel_table,
    memory_table,
    rates_table,
    times_table,
)
from sparse_detr.benchmarking.peak_memory import LIVE_MEMORY
from sparse_detr.benchmarking.report_files import (
    note_stop,
    print_headings,
    save_report,
    was_stopped,
)
from sparse_detr.benchmarking.timing import TimingPlan
from sparse_detr.engine.tool_program import check_numbers
from sparse_detr.layers.backend import backend_for

_REPORT = "sparse_detr.benchmarking.operator_report"
# Rows lie in a table as large as the values of one image in float32, in a small one that level 2
# caches hold, and in one that no cache holds.
_VALUE_BYTES = 17821 * 1024
_TABLE_BYTES = (2**19, _VALUE_BYTES, 2**28)
_CAPABILITIES = ("avx512", "avx2", "baseline")
_CPU_PROCESSES = 3
_ROUNDS = 5


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Gives the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu", help="device to run on (default: cpu)")
    add("--threads", type=int, help="CPU threads (default: as torch is set)")
    add("--dtype", default="float32", help="type of the values (default: float32)")
    add("--capability", nargs="*", choices=_CAPABILITIES, default=[], metavar="SET",
        help="CPU instructions to force, one or more of avx512, avx2, baseline; "
        "each in processes of its own (default: the best)")  # fmt: skip
    add("--operators", nargs="*", choices=OPERATORS, default=list(OPERATORS), metavar="NAME",
        help=f"operators to measure (default: {', '.join(OPERATORS)})")  # fmt: skip
    add("--queries", nargs="*", choices=QUERY_SETS, default=list(QUERY_SETS), metavar="SET",
        help=f"sets of queries (default: {', '.join(QUERY_SETS)})")  # fmt: skip
    add("--direction", choices=("forward", "backward", "both"), default="both",
        help="forward alone, with backward, or both (default)")  # fmt: skip
    add("--baseline-only", action="store_true",
        help="leave out all ways but the baseline of each case: much faster")  # fmt: skip
    add("--processes", type=int, metavar="N",
        help="fresh processes for each case, whose rounds are put together; 0: none, everything "
        f"in this process (default: {_CPU_PROCESSES} on a CPU, 0 on a GPU)")  # fmt: skip
    add("--rounds", type=int, default=_ROUNDS,
        help=f"rounds that count, of each process (default: {_ROUNDS})")  # fmt: skip
    add("--block-seconds", type=float, default=TimingPlan.block_seconds,
        help="least length of a block (default: 0.15)")  # fmt: skip
    add("--patience", type=float, default=TimingPlan.patience_seconds, metavar="SECONDS",
        help="how long each case may wait for others to be quiet (default: 10)")  # fmt: skip
    add("--no-times", action="store_true", help="leave the times out")
    add("--no-memory", action="store_true", help="leave peak memory out")
    add("--no-rates", action="store_true", help="leave this machine's memory rates out")
    add("--json", type=Path, help="file to write all measurements to")
    add("--show", type=Path, nargs="+", metavar="FILE",
        help="measure nothing: print the tables of such files")  # fmt: skip
    add("--markdown", action="store_true", help="print the tables in Markdown")
    options = parser.parse_args(arguments)
    check_numbers(parser, options, threads=1, processes=0, rounds=1)
    return options


def timing_plan(options: argparse.Namespace) -> TimingPlan:
    """Gives how much to measure."""
    return TimingPlan(
        rounds=options.rounds,
        block_seconds=options.block_seconds,
        patience_seconds=options.patience,
    )


def selected(options: argparse.Namespace) -> Iterator[tuple[str, str, bool]]:
    """Gives operator, queries and direction (backward or not) of what was asked for."""
    wanted = {"forward": (False,), "backward": (True,), "both": (False, True)}[options.direction]
    for operator, queries, backward in MEASURED:
        if operator in options.operators and queries in options.queries:
            for with_backward in directions(operator, backward):
                if with_backward in wanted:
                    yield operator, queries, with_backward


def measure_times(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Gives a record for each measurement, as it is made."""
    for operator, queries, backward in selected(options):
        arguments = {
            "operator": operator,
            "queries": queries,
            "backward": backward,
            "device": options.device,
            "dtype": options.dtype,
            "threads": options.threads,
            "plan": asdict(timing_plan(options)),
            "baseline_only": options.baseline_only,
        }
        for capability in options.capability or (None,):
            record = pool_processes(measure_once_or_more(arguments, options, capability))
            yield {**record, "capability": capability or own_capability(options.device)}


def measure_once_or_more(
    arguments: dict[str, Any], options: argparse.Namespace, capability: str | None
) -> list[dict[str, Any]]:
    """Gives the record of a measurement from each of its processes, or from this one."""
    processes = options.processes
    if processes is None:
        processes = _CPU_PROCESSES if torch.device(options.device).type == "cpu" else 0
    if processes == 0 and capability is None:
        return [measure_operator(**arguments)]
    environment = {} if capability is None else {"SPARSE_DETR_CPU_CAPABILITY": capability}
    return [
        call_in_fresh_process(f"{_REPORT}:measure_operator", arguments, environment)
        for _ in range(max(1, processes))
    ]


def own_capability(device: str) -> str | None:
    """Gives the instructions that the operators chose by themselves; None on a GPU."""
    return cpu_capability() if torch.device(device).type == "cpu" else None


def measure_memory(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Gives peak memory of each case and of its baseline, each in a fresh process."""
    baselines = {
        "ms_deform_attn": "grid_sample (released)",
        "ms_deform_attn_fused": "torch arithmetic + ms_deform_attn",
        "sample_then_project": "F.linear + ms_deform_attn_fused",
        "decoder_attention_map": "scatter_add (released)",
    }
    for operator, queries, backward in selected(options):
        for candidate in (OURS, baselines.get(operator)):
            if candidate is None:
                continue
            case = {
                "operator": operator,
                "queries": queries,
                "backward": backward,
                "candidate": candidate,
                "device": options.device,
                "dtype": options.dtype,
                "threads": options.threads,
            }
            record = call_in_fresh_process(f"{_REPORT}:measure_peak", case, LIVE_MEMORY)
            case["direction"] = WITH_BACKWARD if case.pop("backward") else FORWARD
            yield {**case, "threads": options.threads or torch.get_num_threads(), **record}


def measure_rates(options: argparse.Namespace) -> dict[str, Any]:
    """Gives the rates of this machine's memory."""
    device = torch.device(options.device)
    rates = measure_memory_rates(timer_for(device, timing_plan(options)), device, _TABLE_BYTES)
    return {
        "copy": asdict(rates.copy),
        "gather": {str(size): asdict(spread) for size, spread in rates.gather.items()},
        "reference_table_bytes": str(_VALUE_BYTES),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Gives all measurements; prints each table row's case as it is made."""
    device = torch.device(options.device)
    threads = torch.get_num_threads()
    _, missing = installed_peers(device.type)
    report: dict[str, Any] = {
        "machine": describe_machine(device),
        "notes": [DisturbanceWatch.of_this_machine(threads).note, *missing],
        "rates": None,
        "operators": [],
        "memory": [],
    }
    if not options.no_rates:
        report["rates"] = measure_rates(options)
    try:
        for part, wanted, measure in (
            ("operators", not options.no_times, measure_times),
            ("memory", not options.no_memory, measure_memory),
        ):
            for record in measure(options) if wanted else ():
                print(f"measured: {record['operator']}, {record['queries']}, "
                      f"{record['direction']}", file=sys.stderr, flush=True)  # fmt: skip
                report[part].append(record)
                save_report(report, options.json)
    except FreshProcessError as error:
        note_stop(report, error)
    return report


def show(reports: list[dict[str, Any]], markdown: bool) -> None:
    """Prints the tables of one or more reports."""
    print_headings(reports, markdown)
    operators = [record for report in reports for record in report["operators"]]
    memory = [record for report in reports for record in report["memory"]]
    rates = [report["rates"] for report in reports if report["rates"]]
    tables = []
    if operators:
        tables += [times_table(operators, markdown), kernel_table(operators, markdown)]
    if rates:
        tables.append(rates_table(rates[-1], operators, markdown))
    if memory:
        tables.append(memory_table(memory, markdown))
    if any(record["device"] == "cpu" for record in operators):
        tables.append(aims_table(operators, markdown))
    print("\n\n".join(filter(None, tables)))


def main(arguments: list[str] | None = None) -> int:
    """Measures or shows; gives 1 where there is no compiled operator, or nothing was finished."""
    options = parse_arguments(arguments)
    if options.show:
        show([json.loads(file.read_text()) for file in options.show], options.markdown)
        return 0
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if backend_for(torch.device(options.device).type) != "native":
        print("nothing to compare: build the extension first", file=sys.stderr)
        return 1
    report = run(options)
    save_report(report, options.json)
    show([report], options.markdown)
    return 1 if was_stopped(report) else 0


if __name__ == "__main__":
    sys.exit(main())
