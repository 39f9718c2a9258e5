#!/usr/bin/env python3
"""Draws predictions beside the ground truth, and the kept tokens of each level, as PNG files.

Images come from a data set (that of the config's evaluation unless another is named) or from files
and folders. Exit status: 0 done, 2 when the input has to be corrected (the message says what).
"""

from __future__ import annotations

import argparse
import sys

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
    visualize_predictions.py --config-file output/quickstart/config.yaml
  other weights and another keeping ratio, files and a folder
    visualize_predictions.py --config-file sparse_detr/sparse_detr_r50_rho10_50ep \\
        --weights model.pth --keep-ratio 0.3 --input street.jpg holiday/
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = tool_parser(__doc__, EXAMPLES)
    parser.add_argument("--config-file", required=True, metavar="FILE_OR_NAME", help="the config")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint; default: train.init_checkpoint=FILE of this command line, else the last "
        "one in train.output_dir, else train.init_checkpoint of the config",
    )
    add_picture_options(parser, "pictures")
    options = parser.parse_intermixed_args(arguments)
    check_numbers(parser, options, num_images=1)
    return options


def draw(options: argparse.Namespace) -> None:
    """Writes the pictures and says where they are."""
    from sparse_detr.data.mapper import BadSampleError
    from sparse_detr.engine.errors import user_errors
    from sparse_detr.inference import Predictor
    from sparse_detr.inference.config_reading import run_config
    from sparse_detr.visualization import PictureOptions, write_pictures
    from sparse_detr.visualization.picture_sources import chosen_records

    config = run_config(options.config_file, options.overrides, options.device)
    records = chosen_records(config, options.input, options.dataset, options.num_images)
    predictor = Predictor.from_config(
        config,
        options.weights,
        options.overrides,
        device=str(config.train.device),
        keep_ratio=options.keep_ratio,
    )
    ratio = predictor.model.keep_ratio
    described = f"keeping ratio {ratio}"
    if ratio is None:
        described = "a dense encoder (no tokens are selected, so only predictions are drawn)"
    output = output_folder(options.output, config.train.output_dir, "pictures")
    print(f"Drawing {len(records)} images with {predictor.weights}, {described}", flush=True)
    shown = PictureOptions(predictor.class_names, options.score_threshold)
    with user_errors("image", BadSampleError), user_errors(f"--output {output}", OSError):
        pictures = write_pictures(
            predictor.model, lambda r: predictor.sample(r["file_name"]), records, output, shown
        )
        for number, files in enumerate(pictures, start=1):
            print(f"[{number}/{len(records)}] {', '.join(f.name for f in files)}", flush=True)
    print(f"The pictures are in {output}")


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after drawing."""
    options = parse_arguments(arguments)
    return run_tool(lambda: draw(options))


if __name__ == "__main__":
    sys.exit(main())
