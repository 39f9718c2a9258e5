#!/usr/bin/env python3
"""Trains a small Sparse DETR on drawn shapes, evaluates it and draws what it sees.

Everything is written to `train.output_dir` of `configs/quickstart.py`. Exit status: 0 when
the average precision reaches the gate `train.expected_results` of that config, 1 when it does not,
2 when an argument is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

CONFIG = "quickstart"
NUM_PICTURES = 12


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help=f"changes to the config {CONFIG!r}"
    )
    return parser.parse_args(arguments)


def results_table(results: dict[str, Any], minutes: float, config: Any) -> str:
    """Gives the results in words and numbers.

    Args:
        results: Metrics by task, as the run wrote them to ``results.json``.
        minutes: Duration of training and evaluation.
        config: The config tree, for the gate and the keeping ratio.
    """
    bbox = results["bbox"]
    rows = [("AP", "average precision, IoU 0.50:0.95"), ("AP50", "IoU 0.50"), ("AP75", "IoU 0.75")]
    rows += [("APs", "small objects (below 32 x 32 px)"), ("APm", "medium objects")]
    found = {name: value for name, value in bbox.items() if value is not None}
    lines = [f"  {name:<6} {found[name]:6.2f}   {text}" for name, text in rows if name in found]
    classes = {k[len("AP-") :]: v for k, v in found.items() if k.startswith("AP-")}
    lines += [f"  {'AP':<6} {value:6.2f}   {name}" for name, value in classes.items()]
    gates = [row for row in config.train.expected_results if row[:2] == ["bbox", "AP"]]
    gate = f", gate {gates[0][2]:g}" if gates else ""
    head = (
        f"Sparse DETR, keeping ratio {config.model.keep_ratio}, "
        f"{config.data.val_images} held-out images, {minutes:.1f} minutes{gate}:"
    )
    return "\n".join([head, *lines])


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after training, evaluation and drawing."""
    overrides: list[str] = parse_arguments(arguments).overrides
    import visualize_predictions
    from sparse_detr.config.loading import load_config
    from sparse_detr.config.overrides import ConfigError
    from sparse_detr.engine.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE
    from sparse_detr.engine.evaluation import missed_expectations
    from sparse_detr.engine.program import run
    from sparse_detr.visualization import draw_curves

    try:
        config = load_config(CONFIG, overrides)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    output = Path(str(config.train.output_dir))
    # What an earlier run left must not pass for the result of this one.
    (output / "results.json").unlink(missing_ok=True)
    started = time.perf_counter()
    status = run(["--config-file", CONFIG, *overrides])
    minutes = (time.perf_counter() - started) / 60
    # A missed gate still has results to look at; other failures have said what is wrong.
    if status not in (EXIT_OK, EXIT_FAILED) or not (output / "results.json").is_file():
        return status
    drawn = visualize_predictions.main(
        ["--config-file", str(output / "config.yaml"), "--num-images", str(NUM_PICTURES)]
    )
    curves = draw_curves(output / "metrics.json", output / "curves.png")
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))["results"]
    print()
    print(results_table(results, minutes, config))
    print(f"\nPictures: {output / 'pictures'}\nCurves:   {curves}\nLog:      {output / 'log.txt'}")
    if missed_expectations(results, config.train.expected_results):
        print("The average precision is below the gate.", file=sys.stderr)
    elif status != EXIT_OK:
        print("The run failed; the table is of its last evaluation.", file=sys.stderr)
    return status or drawn


if __name__ == "__main__":
    sys.exit(main())
