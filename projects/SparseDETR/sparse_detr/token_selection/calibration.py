"""Measures how long a detector takes on this machine, for latency budgets.

    python -m sparse_detr.token_selection.calibration --config-file CONFIG

Times single images of a few sizes at a few keeping ratios, fits a line over the tokens for each
ratio, and keeps them in a JSON file. Let nothing else run meanwhile. Weights do not change the
time; structure, type, optimisation, device and number of threads do, and have calibrations of
their own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..benchmarking.blocks import run_block_for
from ..benchmarking.disturbance import DisturbanceWatch
from ..benchmarking.timing import Call, Timer, TimingPlan
from ..engine.errors import user_errors
from ..engine.tool_program import add_device_option, run_tool, tool_parser
from ..structures import Size
from .keep_ratio import check_keep_ratio, kept_count
from .latency import (
    COMMAND,
    Calibration,
    add_calibration,
    default_file,
    fitted_lines,
    machine_key,
    model_key,
)

if TYPE_CHECKING:
    from ..meta_arch import TransformerDetector

EXAMPLES = """
examples:
  the usual sizes and ratios, kept where a latency budget looks for them
    calibration --config-file sparse_detr/sparse_detr_r50_rho10_50ep
  images and ratios of your own, with four threads
    calibration --config-file quickstart --threads 4 --sizes 480x640 600x800 \\
        --keep-ratios 0.1 0.3 1 model.num_classes=91 --output latency.json
"""
SIZES: tuple[Size, ...] = ((480, 640), (640, 853), (800, 1066))
RATIOS = (0.01, 0.1, 0.2, 0.3, 0.5, 1.0)
PLAN = TimingPlan(rounds=5, block_seconds=0.3, warmup_calls=1, patience_seconds=20.0)


@torch.no_grad()
def calibrate(
    detector: TransformerDetector,
    sizes: Sequence[Size] = SIZES,
    ratios: Sequence[float] = RATIOS,
    plan: TimingPlan = PLAN,
    tell: Callable[[str], object] = lambda line: None,
) -> Calibration:
    """The times of a detector on this machine.

    Args:
        detector: In evaluation mode, on its device; optimised or not.
        sizes: (height, width) of the images, pixels; two numbers of tokens at least.
        ratios: Keeping ratios; two at least.
        plan: How much to measure.
        tell: Called with a line for each size that was measured.

    Raises:
        ValueError: An argument does not fit, or the detector scores no tokens.
    """
    if detector.training:
        raise ValueError("detector is in training mode, expected evaluation mode; call eval()")
    if detector.keep_ratio is None:
        raise ValueError("detector does not select tokens: there is nothing that a budget sets")
    shares = sorted({check_keep_ratio(ratio, "ratio") for ratio in ratios})
    timer = Timer(
        plan,
        DisturbanceWatch.of_this_machine(torch.get_num_threads()),
        run_block_for(detector.device),
    )
    times: dict[float, list[tuple[int, float]]] = {ratio: [] for ratio in shares}
    records: list[dict[str, Any]] = []
    for height, width in sizes:
        inputs = [{"image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8)}]
        tokens = detector.extract_tokens(detector.preprocess(inputs)).valid_counts[0]
        calls: dict[str, Call] = {str(r): partial(detector, inputs, r) for r in shares}
        measured = timer.compare(calls).by_name
        for ratio in shares:
            spread = measured[str(ratio)].milliseconds
            times[ratio].append((tokens, spread.median))
            kept = min(kept_count(tokens, ratio), tokens)
            record = {"height": height, "width": width, "tokens": tokens, "kept": kept}
            disturbed = measured[str(ratio)].disturbed
            records.append({**record, "ms": spread.median, "disturbed_blocks": disturbed})
        marks = ", ".join(f"{r['ms']:.0f} ms at {r['kept']}" for r in records[-len(shares) :])
        tell(f"{height}x{width}, {tokens} tokens: {marks} kept")
    lines, error = fitted_lines(dict(times))
    machine = machine_key(detector.device)
    return Calibration(model_key(detector), machine, lines, error, tuple(records))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and keeps; gives the exit code.

    Args:
        arguments: Of the command line; None takes the program's own.
    """
    options = _parser().parse_intermixed_args(arguments)
    return run_tool(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    """Measures the detector of a command line and keeps its calibration."""
    # Imported after the command line is checked: Detectron2 takes seconds.
    from ..config.loading import load_config
    from ..inference import build_model_for_inference
    from ..inference.config_reading import device_of

    if options.threads:
        torch.set_num_threads(options.threads)
    file = options.output or default_file()
    config = load_config(options.config_file, options.overrides)
    detector = build_model_for_inference(
        config, None, device_of(config, options.device), optimize=options.optimize
    )
    with user_errors("calibration", ValueError), user_errors(f"--output {file}", OSError):
        made = calibrate(detector, options.sizes, options.keep_ratios, tell=_tell)
        add_calibration(made, file)
    disturbed = sum(record["disturbed_blocks"] for record in made.measurements)
    if disturbed:
        _tell(f"other programs disturbed {disturbed} of the measured blocks; better measure again")
    _tell(f"lines differ from the measurements by at most {100 * made.largest_error:.1f} %")
    _tell(f"kept in {file}; use it with model.keep_ratio=latency:MILLISECONDS"
          + ("" if options.output is None else f",{file}"))  # fmt: skip


def _tell(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    from ..analysis.image_sizes import image_size  # the detectors, which import this package

    parser = tool_parser(__doc__, EXAMPLES)
    parser.prog = COMMAND
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE_OR_NAME", help="as train_net.py takes it")
    add_device_option(add)
    add("--threads", type=int, help="CPU threads (default: as torch is set)")
    add("--optimize", choices=("exact", "bfloat16-backbone", "bfloat16"), metavar="PRECISION",
        help="measure the detector that optimize_for_inference gives")  # fmt: skip
    add("--sizes", nargs="+", type=image_size, default=list(SIZES), metavar="HxW",
        help="of the images, pixels (default: 480x640 640x853 800x1066)")  # fmt: skip
    add("--keep-ratios", nargs="+", type=float, default=list(RATIOS), metavar="RHO",
        help="shares of kept tokens to measure (default: 0.01 0.1 0.2 0.3 0.5 1)")  # fmt: skip
    add("--output", type=Path, metavar="FILE.json", help=f"default: {default_file()}")
    add("overrides", nargs="*", metavar="key=value", help="changes to the config")
    return parser


if __name__ == "__main__":
    sys.exit(main())
