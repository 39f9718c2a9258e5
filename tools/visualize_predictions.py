#!/usr/bin/env python3
"""Draws predictions beside the ground truth, and the kept tokens of each level, as PNG files.

Images come from a data set (that of the config's evaluation unless another is named) or from files
and folders. Exit status: 0 done, 2 when the input has to be corrected (the message says what).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE_OR_NAME", help="the config")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint; default: train.init_checkpoint=FILE of this command line, else the last "
        "one in train.output_dir, else train.init_checkpoint of the config",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--dataset", metavar="NAME", help="val (default) or train of the config, or a name"
    )
    source.add_argument("--input", nargs="+", metavar="PATH", help="image files and folders")
    parser.add_argument(
        "--output", metavar="FOLDER", help="default: the folder 'pictures' in train.output_dir"
    )
    parser.add_argument(
        "--num-images", type=int, metavar="N", help="default: 10 of a data set, all of --input"
    )
    parser.add_argument("--score-threshold", type=float, default=0.3, metavar="T")
    parser.add_argument(
        "--keep-ratio", metavar="RHO", help="in (0, 1], or any other form of keeping ratio"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    options = parser.parse_intermixed_args(arguments)
    if not 0.0 <= options.score_threshold <= 1.0:
        parser.error(f"--score-threshold is {options.score_threshold}, expected 0 to 1")
    if options.num_images is not None and options.num_images < 1:
        parser.error(f"--num-images is {options.num_images}, expected 1 or more")
    return options


def draw(options: argparse.Namespace) -> Path:
    """Gives the folder of the pictures after writing them."""
    from sparse_detr.config.loading import load_config
    from sparse_detr.data.mapper import BadSampleError
    from sparse_detr.engine.errors import user_errors
    from sparse_detr.inference import Predictor
    from sparse_detr.visualization import PictureOptions, write_pictures
    from sparse_detr.visualization.picture_sources import chosen_records, split_inputs

    paths, overrides = split_inputs(options.input, options.overrides)
    config = load_config(options.config_file, overrides)
    records = chosen_records(config, paths, options.dataset, options.num_images)
    predictor = Predictor.from_config(
        config,
        options.weights,
        overrides,
        device=str(config.train.device),
        keep_ratio=options.keep_ratio,
    )
    ratio = predictor.model.keep_ratio
    described = f"keeping ratio {ratio}"
    if ratio is None:
        described = "a dense encoder (no tokens are selected, so only predictions are drawn)"
    output = Path(options.output or Path(str(config.train.output_dir)) / "pictures")
    print(f"Drawing {len(records)} images with {predictor.weights}, {described}", flush=True)
    shown = PictureOptions(predictor.class_names, options.score_threshold)
    with user_errors("image", BadSampleError), user_errors(f"--output {output}", OSError):
        pictures = write_pictures(
            predictor.model, lambda r: predictor.sample(r["file_name"]), records, output, shown
        )
        for number, files in enumerate(pictures, start=1):
            print(f"[{number}/{len(records)}] {', '.join(f.name for f in files)}", flush=True)
    return output


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after drawing."""
    options = parse_arguments(arguments)
    # Imported after the command line is checked: torch and Detectron2 take seconds.
    from sparse_detr.config.overrides import ConfigError
    from sparse_detr.engine.errors import EXIT_OK, EXIT_USAGE, UserError

    try:
        output = draw(options)
    except (UserError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"The pictures are in {output}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
