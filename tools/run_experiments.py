#!/usr/bin/env python3
"""Trains small detectors with different token selections and compares them, seed by seed.

Every run is a process of its own. Finished runs are kept and interrupted ones resumed, so the same
command goes on where it was stopped. Exit status: 0 all runs are done, 1 a run failed (the others
are made all the same), 2 an argument is wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from sparse_detr.engine.tool_program import run_tool, tool_parser

EXAMPLES = """
examples:
  the drawn shapes (made on first use), all settings, three seeds, two runs at a time
    run_experiments.py --data shapes --jobs 2
  photographs in a folder with annotations/{train,val}.json and images/
    run_experiments.py --data blood_cells --root bccd --seeds 1 2
  the tables of what is finished, written into a page that has its heading
    run_experiments.py --data shapes --report-only --page docs/experiments.md
"""
# A run of dozens is long: one that fails at once, as all would, must not go by unseen.
_FAILURES_UNTIL_STOP = 3


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    from sparse_detr.experiments.settings import CRITERIA, DATA_SETS, DENSE

    parser = tool_parser(__doc__, EXAMPLES)
    parser.add_argument("--data", choices=sorted(DATA_SETS), required=True, help="data set")
    parser.add_argument("--root", metavar="FOLDER", type=Path, help="folder of the photographs")
    parser.add_argument(
        "--criteria", nargs="+", choices=(DENSE, *CRITERIA), default=[DENSE, *CRITERIA]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N")
    parser.add_argument("--output", type=Path, default=Path("output/experiments"), metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of a run")
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables into this page")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="changes to the config of every run"
    )
    options = parser.parse_intermixed_args(arguments)
    if DATA_SETS[options.data].needs_root and options.root is None:
        parser.error(f"--data {options.data} needs --root FOLDER with annotations/ and images/")
    if not DATA_SETS[options.data].needs_root and options.root is not None:
        parser.error(f"--data {options.data} draws its images itself and takes no --root")
    if options.jobs < 1 or options.threads < 1:
        parser.error("--jobs and --threads must be 1 or more")
    if len(set(options.seeds)) < len(options.seeds):
        parser.error(f"--seeds names a seed twice: {options.seeds}")
    if options.page is not None and not options.page.is_file():
        parser.error(f"--page {options.page} does not exist")
    return options


def planned_runs(options: argparse.Namespace) -> list[Any]:
    """Gives all runs, every setting of one seed before the next seed."""
    from sparse_detr.experiments import DATA_SETS, ExperimentPlan, ExperimentRun, settings_of

    overrides = list(options.overrides)
    if options.root is not None:
        overrides.append(f"data.root={options.root.resolve()}")
    plan = ExperimentPlan(
        DATA_SETS[options.data], options.output, tuple(overrides), options.threads
    )
    settings = settings_of(tuple(options.criteria))
    return [ExperimentRun(plan, s, seed) for seed in options.seeds for s in settings]


def prepare_data(run: Any) -> None:
    """Draws or checks the data once, before several runs start on it.

    Raises:
        UserError: The data cannot be used.
    """
    from detectron2.config import instantiate

    from sparse_detr.config.loading import load_config
    from sparse_detr.engine.errors import user_errors

    config = load_config(run.setting.config(run.plan.data), list(run.plan.overrides))
    with user_errors("data", ValueError, OSError):
        instantiate(config.dataloader.train.dataset)
        instantiate(config.dataloader.test.dataset)


def make_runs(runs: list[Any], jobs: int) -> int:
    """Gives the number of runs that failed after making all that are not finished."""
    from sparse_detr.experiments import RunFailedError, run_experiment

    failures = 0
    pool = ThreadPoolExecutor(jobs)
    pending = {pool.submit(run_experiment, run): run for run in runs}
    try:
        for done, future in enumerate(as_completed(pending), start=1):
            run = pending[future]
            label = f"[{done}/{len(runs)}] {run.setting.title}, seed {run.seed}:"
            try:
                record = future.result()
            except RunFailedError as error:
                failures += 1
                print(f"{label} failed\n{error}", file=sys.stderr, flush=True)
                if failures == _FAILURES_UNTIL_STOP:
                    print("Three runs failed; the rest is left out.", file=sys.stderr)
                    break
                continue
            precision = record["results"].get("bbox", {}).get("AP")
            shown = "no AP" if precision is None else f"AP {precision:.2f}"
            print(f"{label} {shown}", flush=True)
    finally:  # what has not started is left out, also after Ctrl-C
        pool.shutdown(cancel_futures=True)
    return failures


def write_report(options: argparse.Namespace, runs: list[Any]) -> None:
    """Prints the tables of the finished runs and writes them into the page, if one is given."""
    from sparse_detr.experiments import DATA_SETS, replace_section, report_section, results_of

    records = [(run.setting, run.seed, run.record()) for run in runs]
    results = results_of([(s, seed, r) for s, seed, r in records if r is not None])
    if not results:
        print("No run is finished.")
        return
    data = DATA_SETS[options.data]
    section = report_section(data, results, options.seeds)
    print("\n" + section)
    if options.page is not None:
        page = replace_section(options.page.read_text(encoding="utf-8"), data.title, section)
        options.page.write_text(page, encoding="utf-8")


def work(options: argparse.Namespace) -> int:
    """Gives the exit status after all runs."""
    from sparse_detr.engine.errors import EXIT_FAILED, EXIT_OK, user_errors

    runs = planned_runs(options)
    failures = 0
    with user_errors("experiments", ValueError):
        if not options.report_only:
            prepare_data(runs[0])
            failures = make_runs(runs, options.jobs)
        write_report(options, runs)
    return EXIT_FAILED if failures else EXIT_OK


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after all runs."""
    options = parse_arguments(arguments)
    return run_tool(lambda: work(options), "interrupted; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
