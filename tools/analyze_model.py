#!/usr/bin/env python3
"""Counts the parameters and GFLOPs of the detector of a config, part by part; nothing is trained.

1 multiply-add is 1 FLOP, as in the papers' tables. Exit status: 0 done, 2 when the input has to be
corrected (the message says what).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_detr.engine.tool_program import run_tool, tool_parser

if TYPE_CHECKING:
    from sparse_detr.structures import Size
    from sparse_detr.token_selection import KeepRatio

CONVENTIONS = ("honest", "released", "released-as-built")
ORDERS: dict[str, bool | None] = {"automatic": None, "sample-first": True, "project-first": False}
DEFAULT_IMAGE = (480, 640)

EXAMPLES = """
examples:
  a 480x640 image, resized as the config's evaluation does
    analyze_model.py --config-file sparse_detr/sparse_detr_r50_rho10_50ep
  two sizes of the network's input, several keeping ratios, as the release counts
    analyze_model.py --config-file sparse_detr/sparse_detr_r50_rho10_50ep --convention released \\
        --sizes 800x1066 850x1040 --keep-ratios 0.1 0.3 0.5 model.num_classes=91
  the mean over the images that a csv file lists (columns height and width, pixels of the files)
    analyze_model.py --config-file quickstart --sizes sizes.csv --json analysis.json

conventions:
  honest             what this project runs at inference, every multiply-add of the sampling
  released           what the released code runs, counted as the release's table counts it,
                     without the encoder's auxiliary heads
  released-as-built  the same with those heads, which the released code runs at inference too
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = tool_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE_OR_NAME", help="the config")
    add("--sizes", nargs="+", default=[], metavar="HxW_OR_CSV",
        help="sizes of the network's input, pixels; or csv files of image sizes, which are resized "
        "as the config's evaluation does (default: an image of 480x640, resized)")  # fmt: skip
    add("--resize", action="store_true", help="also resize what is given as HxW")
    add("--keep-ratios", nargs="+", default=[], metavar="RHO",
        help="shares in (0, 1], levels:..., layers:..., cascade:... or gflops:... "
        "(default: the config's)")  # fmt: skip
    add("--convention", nargs="+", choices=CONVENTIONS, default=["honest"], dest="conventions",
        metavar="NAME",
        help=f"what is counted: {', '.join(CONVENTIONS)} (default: honest)")  # fmt: skip
    add("--order", choices=tuple(ORDERS), default="automatic",
        help="whether deformable attention samples or projects first "
        "(default: its own choice)")  # fmt: skip
    add("--markdown", action="store_true", help="print Markdown tables")
    add("--json", type=Path, metavar="FILE", help="write everything there, in multiply-adds")
    add("overrides", nargs="*", metavar="key=value", help="changes to the config")
    return parser.parse_intermixed_args(arguments)


def input_sizes(options: argparse.Namespace, config: Any) -> list[Size]:
    """Gives the size of the network's input for each image.

    Raises:
        UserError: A size or a file is wrong.
    """
    from sparse_detr.analysis.image_sizes import evaluation_resize, image_size, read_image_sizes
    from sparse_detr.engine.errors import user_errors

    sizes: list[Size] = []
    with user_errors("--sizes", ValueError, OSError, argparse.ArgumentTypeError):
        for text in options.sizes:
            if text.endswith(".csv"):
                resize = evaluation_resize(config)
                images = read_image_sizes(text)
                resized = {size: resize(size) for size in set(images)}
                sizes += [resized[size] for size in images]
            else:
                size = image_size(text)
                sizes.append(evaluation_resize(config)(size) if options.resize else size)
        return sizes or [evaluation_resize(config)(DEFAULT_IMAGE)]


def keep_ratios(options: argparse.Namespace, model: Any) -> list[KeepRatio | None]:
    """Gives the keeping ratios to count.

    Raises:
        UserError: One is wrong, or depends on more than the size of an image.
    """
    from sparse_detr.engine.errors import UserError, user_errors
    from sparse_detr.token_selection import LatencyBudget, PerLayer, ScoreMass, as_keep_ratio

    if model.token_scoring is None:
        if options.keep_ratios:
            raise UserError("--keep-ratios: the detector of this config does not score tokens")
        return [None]
    ratios: list[KeepRatio | None] = []
    with user_errors("--keep-ratios", ValueError):
        for text in options.keep_ratios or [model.keep_ratio]:
            ratio = as_keep_ratio(text)
            ratio.check_fits(len(model.position_embedding.level_embed), len(model.encoder.layers))
            entries = ratio.entries if isinstance(ratio, PerLayer) else (ratio,)
            if any(isinstance(entry, (ScoreMass, LatencyBudget)) for entry in entries):
                raise ValueError(
                    f"{ratio} depends on the image or on the machine, so nothing can be counted "
                    "beforehand; tools/sweep_keep_ratio.py measures it on a data set"
                )
            ratios.append(ratio)
    return ratios


def run(options: argparse.Namespace) -> None:
    """Counts and prints.

    Raises:
        ConfigError: The config is wrong.
        UserError: An option is.
    """
    from sparse_detr.analysis.conventions import CONVENTIONS_BY_NAME
    from sparse_detr.analysis.model_analysis import analyze, report_text
    from sparse_detr.config.loading import load_config
    from sparse_detr.engine.checkpoint_file import write_text
    from sparse_detr.engine.errors import user_errors
    from sparse_detr.inference import build_model_for_inference

    config = load_config(options.config_file, options.overrides)
    sizes = input_sizes(options, config)
    model = build_model_for_inference(config, None, device="cpu")
    ratios = keep_ratios(options, model)
    conventions = [CONVENTIONS_BY_NAME[name] for name in dict.fromkeys(options.conventions)]
    with user_errors("count", ValueError):
        report = analyze(model, sizes, ratios, conventions, ORDERS[options.order])
    report = {"config": options.config_file, "overrides": options.overrides, **report}
    print(f"{options.config_file} {' '.join(options.overrides)}".rstrip(), end="\n\n")
    print(report_text(report, options.markdown), end="")
    if options.json is not None:
        with user_errors("--json", OSError):
            write_text(json.dumps(report, indent=1) + "\n", options.json)


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after counting."""
    options = parse_arguments(arguments)
    return run_tool(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
