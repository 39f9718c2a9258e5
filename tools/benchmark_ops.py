"""Times the deformable-attention operator against the pure-torch path, side by side in one run.

Both are called in turn, round after round, so that whatever else the machine does falls on both; a
ratio is the median of the ratios of the rounds.

    python tools/benchmark_ops.py [--device cpu|cuda] [--threads N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparse_detr.layers.backend import backend_for, describe_backend, use_backend
from sparse_detr.layers.ms_deform_attn import ms_deform_attn

# ResNet-50 levels of an 800x1066 image.
SPATIAL_SHAPES = [(100, 134), (50, 67), (25, 34), (13, 17)]
TOKENS = sum(height * width for height, width in SPATIAL_SHAPES)
HEADS, CHANNELS, POINTS = 8, 32, 4
CASES = {"all tokens": TOKENS, "10 % of the tokens": TOKENS // 10, "300 queries": 300}


@dataclass(frozen=True)
class Measurement:
    """Times of one case; `ratio` is torch over native, with its smallest and largest round."""

    case: str
    what: str
    native_ms: float
    torch_ms: float
    ratio: float
    ratio_min: float
    ratio_max: float


def make_inputs(
    queries: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gives values, locations some cells around raster-ordered points, and softmax weights."""
    generator = torch.Generator().manual_seed(0)
    levels = len(SPATIAL_SHAPES)
    value = torch.randn(1, TOKENS, HEADS, CHANNELS, generator=generator)
    centres = torch.cat(
        [
            torch.cartesian_prod(
                (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
            )
            for height, width in SPATIAL_SHAPES
        ]
    ).flip(-1)
    chosen = torch.linspace(0, TOKENS - 1, queries).long()
    offsets = 1.5 * torch.randn(1, queries, HEADS, levels, POINTS, 2, generator=generator)
    sizes = torch.tensor([(width, height) for height, width in SPATIAL_SHAPES])
    locations = centres[chosen].view(1, queries, 1, 1, 1, 2) + offsets / sizes.view(levels, 1, 2)
    logits = torch.randn(1, queries, HEADS, levels * POINTS, generator=generator)
    weights = logits.softmax(-1).view(1, queries, HEADS, levels, POINTS)
    value, locations, weights = (tensor.to(device, dtype) for tensor in (value, locations, weights))
    return value, locations, weights


def milliseconds(call: Callable[[], object], device: torch.device, at_least: float = 0.05) -> float:
    """Gives the mean time of a call, repeated for `at_least` seconds."""
    calls = 0
    start = time.perf_counter()
    while True:
        call()
        calls += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed = time.perf_counter() - start
        if elapsed >= at_least:
            return 1000 * elapsed / calls


def measure(
    case: str, queries: int, backward: bool, device: torch.device, rounds: int
) -> Measurement:
    """Gives the times of both backends for one case."""
    value, locations, weights = make_inputs(queries, device, torch.float32)
    inputs = [tensor.requires_grad_(backward) for tensor in (value, locations, weights)]
    grad_output = torch.randn(1, queries, HEADS * CHANNELS, device=device)

    def call() -> None:
        output = ms_deform_attn(value, SPATIAL_SHAPES, locations, weights)
        if backward:
            torch.autograd.grad(output, inputs, grad_output)

    times: dict[str, list[float]] = {"native": [], "torch": []}
    for round_number in range(rounds + 1):
        for name, history in times.items():
            with use_backend(name):
                elapsed = milliseconds(call, device)
            if round_number > 0:  # the first round warms up
                history.append(elapsed)
    ratios = [slow / fast for slow, fast in zip(times["torch"], times["native"], strict=True)]
    return Measurement(
        case,
        "forward + backward" if backward else "forward",
        statistics.median(times["native"]),
        statistics.median(times["torch"]),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Gives the parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="device to run on (default: cpu)")
    parser.add_argument(
        "--threads", type=int, default=None, help="CPU threads (default: as torch is set)"
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="measured rounds per case (default: 7)"
    )
    parser.add_argument("--json", type=Path, default=None, help="file to write the measurements to")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; gives 1 where there is no compiled operator to measure."""
    options = parse_arguments(arguments)
    device = torch.device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    print(describe_backend(device.type))
    if backend_for(device.type) != "native":
        print("nothing to compare: build the extension first", file=sys.stderr)
        return 1
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads, float32, {TOKENS} "
        f"tokens"
    )
    print(
        f"{'case':<20} {'what':<20} {'native ms':>10} {'torch ms':>10} {'ratio':>7} {'min':>7} "
        f"{'max':>7}"
    )
    results = []
    for case, queries in CASES.items():
        for backward in (False, True):
            result = measure(case, queries, backward, device, options.rounds)
            results.append(result)
            print(
                f"{result.case:<20} {result.what:<20} {result.native_ms:>10.3f} "
                f"{result.torch_ms:>10.3f} "
                f"{result.ratio:>6.1f}x {result.ratio_min:>6.1f}x {result.ratio_max:>6.1f}x",
                flush=True,
            )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
