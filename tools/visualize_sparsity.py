#!/usr/bin/env python3
"""Shows the sparsity of a detector: kept tokens, token scores, decoder attention and sampling.

For each image one overview as PNG file, on request also its single panels, and one HTML page for
all images that needs no network. Images come from a data set (that of the config's evaluation
unless another is named) or from files and folders. Exit status: 0 done, 2 when the input has to be
corrected (the message says what).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sparse_detr.engine.tool_program import (
    add_picture_options,
    check_numbers,
    output_folder,
    run_tool,
    tool_parser,
)

EXAMPLES = """
examples:
  the first 10 evaluation images of a finished run
    visualize_sparsity.py --config-file output/quickstart/config.yaml
  a photograph, another keeping ratio, and the query nearest to a point of it
    visualize_sparsity.py --config-file sparse_detr/sparse_detr_r50_rho10_50ep \\
        --weights model.pth --keep-ratio 0.3 --query 0 --query at:320,240 --input street.jpg
"""
KINDS = ("overview", "panels", "page")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = tool_parser(__doc__, EXAMPLES)
    parser.add_argument("--config-file", required=True, metavar="FILE_OR_NAME", help="the config")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint; default: the last one in train.output_dir, else train.init_checkpoint",
    )
    weights.add_argument(
        "--untrained", action="store_true", help="initial weights, to see what training changes"
    )
    parser.add_argument(
        "--query",
        action="append",
        default=[],
        metavar="WHICH",
        help="query whose sampling is drawn: 0 (rank of the detection), index:17 or at:X,Y "
        "(nearest box centre, pixels of the image); can be repeated; default: 0, 1 and 2",
    )
    parser.add_argument("--ground-truth", action="store_true", help="outline it in the PNG files")
    parser.add_argument(
        "--write",
        nargs="+",
        choices=KINDS,
        default=["overview", "page"],
        help="what to write, of: overview, panels (every panel as a file of its own), page; "
        "default: overview page",
    )
    add_picture_options(parser, "sparsity")
    options = parser.parse_intermixed_args(arguments)
    check_numbers(parser, options, num_images=1)
    return options


def draw(options: argparse.Namespace) -> None:
    """Writes the files and says where they are."""
    import torch

    from sparse_detr.data.mapper import BadSampleError
    from sparse_detr.engine.errors import user_errors
    from sparse_detr.inference import Predictor
    from sparse_detr.inference.config_reading import run_config
    from sparse_detr.visualization.picture_sources import chosen_records
    from sparse_detr.visualization.sparsity import (
        BoxOptions,
        QueryChoice,
        SparsityOptions,
        write_sparsity,
    )

    with user_errors("--query", ValueError):
        queries = tuple(QueryChoice.of_text(text) for text in options.query)
    config = run_config(options.config_file, options.overrides, options.device)
    records = chosen_records(config, options.input, options.dataset, options.num_images)
    # Initial weights alone are drawn at random: the same ones each time.
    torch.manual_seed(0)
    predictor = Predictor.from_config(
        config,
        options.weights,
        options.overrides,
        device=str(config.train.device),
        keep_ratio=options.keep_ratio,
        untrained=options.untrained,
    )
    used = predictor.weights or "none, initial values"
    ratio = predictor.model.keep_ratio
    kept = "none, every token is updated" if ratio is None else str(ratio)
    shown = SparsityOptions(
        boxes=BoxOptions(predictor.class_names, options.score_threshold, options.ground_truth),
        queries=queries or SparsityOptions.queries,
        with_overview="overview" in options.write,
        with_panels="panels" in options.write,
        with_page="page" in options.write,
        title=f"Sparsity: {Path(options.config_file).name}",
        facts={"Config": options.config_file, "Weights": used, "Keeping ratio": kept},
    )
    output = output_folder(options.output, config.train.output_dir, "sparsity")
    print(f"Drawing {len(records)} images, weights: {used}, keeping ratio {kept}", flush=True)
    written = write_sparsity(
        predictor.model, lambda r: predictor.sample(r["file_name"]), records, output, shown
    )
    with (
        user_errors("image", BadSampleError),
        user_errors("arguments", ValueError),
        user_errors(f"--output {output}", OSError),
    ):
        for number, files in enumerate(written, start=1):
            report(number, len(records), files)
    print(f"The pictures are in {output}")


def report(number: int, total: int, files: tuple[Path, ...]) -> None:
    """Says what was written: the files of an image, or the page behind the last of them."""
    if number > total:
        (page,) = files
        size = page.stat().st_size / 2**20
        print(f"{page.name}: {size:.1f} MiB, opens in a browser without a network", flush=True)
        return
    overviews = [file.name for file in files if file.name.endswith("_sparsity.png")]
    panels = len(files) - len(overviews)
    found = overviews + ([f"{panels} panels"] if panels else [])
    print(f"[{number}/{total}] {', '.join(found) or 'for the page'}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after drawing."""
    options = parse_arguments(arguments)
    return run_tool(lambda: draw(options))


if __name__ == "__main__":
    sys.exit(main())
