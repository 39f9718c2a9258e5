#!/usr/bin/env python3
"""Detects objects in images, folders of images and videos; writes pictures, videos and COCO json.

Results have the names of their files. In the tool's own folder ("predictions" in train.output_dir)
older results are replaced; in a folder that --output names, and for --json, only with --overwrite.
Exit status: 0 done, 1 the detector failed, 2 when the input has to be corrected (the message says
what; a file that cannot be read is left out and the others are done), 130 interrupted (what was
written until then is complete).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from sparse_detr.engine.tool_program import (
    add_device_option,
    check_numbers,
    run_tool,
    tool_parser,
)

EXAMPLES = """
examples:
  photographs and a folder
    predict.py --config-file output/quickstart/config.yaml --input street.jpg holiday/
  a video, every third frame, faster, into a folder of your own
    predict.py --config-file sparse_detr/sparse_detr_r50_rho10_50ep --weights model.pth \\
        --input clip.mp4 --every 3 --optimize exact --output results
  results that COCO's evaluation reads, and no pictures
    predict.py --config-file sparse_detr/sparse_detr_r50_rho10_50ep --weights model.pth \\
        --input coco/val2017 --json results.json --no-pictures --score-threshold 0
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = tool_parser(__doc__, EXAMPLES)
    parser.add_argument("--config-file", required=True, metavar="FILE_OR_NAME", help="the config")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint; default: the newest one in train.output_dir, else train.init_checkpoint",
    )
    parser.add_argument(
        "--untrained", action="store_true", help="keep the initial weights, to try things out"
    )
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="images, videos, folders, and patterns in quotes ('holiday/*.jpg')",
    )
    parser.add_argument(
        "--recursive", action="store_true", help="look into the folders of folders too"
    )
    _add_output_options(parser)
    _add_detector_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    options = parser.parse_intermixed_args(arguments)
    _check(parser, options)
    return options


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--output", metavar="FOLDER", help="default: the folder 'predictions' in train.output_dir"
    )
    group.add_argument("--overwrite", action="store_true", help="replace files that are there")
    group.add_argument("--no-pictures", action="store_true", help="no pictures and no videos")
    group.add_argument("--json", metavar="FILE", help="results in COCO's format")
    group.add_argument(
        "--annotations",
        metavar="FILE",
        help="COCO annotation file that gives the image ids of --json; default: the numbers that "
        "the files are named with, else 1, 2, ...; frames of videos are counted behind them",
    )
    group.add_argument(
        "--scale", type=float, default=1.0, metavar="S", help="size of pictures; default: 1"
    )
    group.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="of a video look at each Nth frame; those between keep its boxes; default: 1",
    )


def _add_detector_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("detector")
    group.add_argument(
        "--score-threshold", type=float, default=0.3, metavar="T", help="default: 0.3"
    )
    group.add_argument(
        "--keep-ratio", metavar="RHO", help="in (0, 1], or another form that the config takes"
    )
    group.add_argument(
        "--optimize", metavar="PRECISION", help="exact, bfloat16-backbone or bfloat16"
    )
    add_device_option(group.add_argument)
    group.add_argument("--dtype", metavar="TYPE", help="float32 (default) or float64")
    group.add_argument(
        "--class-names",
        nargs="+",
        metavar="NAME",
        help="names in place of the data set's, in the order of the class ids, or one text file "
        "with a name per line",
    )
    group.add_argument("--batch-size", type=int, default=1, metavar="N", help="default: 1")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program where an option is out of range."""
    check_numbers(parser, options, batch_size=1, every=1)
    if not options.scale > 0:
        parser.error(f"--scale is {options.scale}, expected a positive number")
    if options.no_pictures and options.json is None:
        parser.error("--no-pictures without --json FILE writes nothing")
    if options.no_pictures and options.output is not None:
        parser.error("--no-pictures writes nothing to --output")
    if options.annotations is not None and options.json is None:
        parser.error("--annotations is for --json FILE")


def check_targets(targets: list[Path], inputs: list[Path], may_replace: set[Path]) -> None:
    """Raises a message before a file is replaced that the user did not agree to replace.

    Args:
        targets: Files that are going to be written.
        inputs: Files that are going to be read.
        may_replace: Those of the targets that may be replaced.

    Raises:
        UserError: A target is an input, or is there already.
    """
    from sparse_detr.engine.errors import UserError

    read = {path.resolve() for path in inputs}
    for path in targets:
        if path.resolve() in read:
            raise UserError(f"{path} would replace an input; give another --output FOLDER")
    there = [path for path in targets if path.exists() and path not in may_replace]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(
            f"{there[0]}{more} would be replaced; give another --output or --json, or --overwrite"
        )


def prepare(options: argparse.Namespace) -> Any:
    """Gives the run after checking everything that can be checked before it.

    Returns:
        A :class:`sparse_detr.inference.prediction_run.PredictionRun`.
    """
    from sparse_detr import Predictor
    from sparse_detr.config.loading import load_config
    from sparse_detr.inference.config_reading import device_of
    from sparse_detr.inference.input_files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_input_files
    from sparse_detr.inference.prediction_run import PredictionRun, RunOptions, image_ids_from
    from sparse_detr.inference.video import opencv

    config = load_config(options.config_file, options.overrides)
    suffixes = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    files = find_input_files(options.input, options.recursive, suffixes)
    if any(file.is_video for file in files):
        opencv()
    own = Path(str(config.train.output_dir) if "train" in config else ".") / "predictions"
    output = Path(options.output) if options.output else own
    json_file = Path(options.json) if options.json else None
    ids = image_ids_from(options.annotations) if options.annotations else None
    run_options = RunOptions(
        None if options.no_pictures else output, json_file, ids, options.every, options.scale
    )
    predictor = Predictor.from_config(
        config,
        options.weights,
        options.overrides,
        device=device_of(config, options.device),
        keep_ratio=options.keep_ratio,
        score_threshold=options.score_threshold,
        optimize=options.optimize,
        dtype=options.dtype,
        class_names=class_names(options.class_names),
        batch_size=options.batch_size,
        untrained=options.untrained,
    )
    run = PredictionRun(predictor, files, run_options, lambda line: print(line, flush=True))
    targets = run.targets()
    pictures = {path for path in targets if path != json_file}
    replaceable = set(targets) if options.overwrite else set() if options.output else pictures
    check_targets(targets, [file.path for file in files], replaceable)
    if predictor.classes is None:
        print("the classes' names are unknown: ids are shown and written", file=sys.stderr)
    print(f"{counted(len(files))}, {predictor}", flush=True)
    return run


def class_names(words: list[str] | None) -> list[str] | None:
    """Gives the names of the classes: the words themselves, or the lines of the file they name.

    Raises:
        UserError: The file cannot be read.
    """
    from sparse_detr.engine.errors import user_errors

    if words is None or len(words) != 1 or not Path(words[0]).is_file():
        return words
    with user_errors("--class-names", OSError, ValueError):
        lines = Path(words[0]).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def counted(number: int) -> str:
    """Gives a number of files in words."""
    return f"{number} file{'' if number == 1 else 's'}"


def predict(options: argparse.Namespace) -> int:
    """Gives the exit status after predicting."""
    from sparse_detr.engine.errors import (
        EXIT_FAILED,
        EXIT_INTERRUPTED,
        EXIT_OK,
        EXIT_USAGE,
        UserError,
    )

    run, start = None, time.monotonic()
    try:
        run = prepare(options)
        start = time.monotonic()
        run.run()
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        done = 0 if run is None else run.num_done
        try:
            if run is not None:
                run.write_json()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        print(f"interrupted after {counted(done)}; what was written is complete", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(f"{counted(run.num_done)} done in {time.monotonic() - start:.1f} s")
    if run.problems:
        print(f"error: {counted(len(run.problems))} could not be read in full", file=sys.stderr)
        return EXIT_USAGE
    return EXIT_OK


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after predicting."""
    options = parse_arguments(arguments)
    return run_tool(lambda: predict(options))


if __name__ == "__main__":
    sys.exit(main())
