#!/usr/bin/env python3
"""Converts released detectors and pre-trained backbones to this project's checkpoints, and back.

The input is recognised by its keys. It is read as tensors and plain data: code in it is never run.
The output holds tensors and the config to use. Exit status: 0 done, 2 when the input has to be
corrected (the message says what); no output is left then.
"""

from __future__ import annotations

import argparse
import sys

from sparse_detr.engine.tool_program import run_tool, tool_parser

EXAMPLES = """
examples:
  a released Sparse DETR or Deformable DETR, then its evaluation on COCO
    convert_checkpoint.py sparse_detr_r50_10.pth converted.pth
    train_net.py --config-file converted.pth --eval-only
  a backbone for a training (torchvision, Swin authors, SCRL, MoCo, DINO, ...)
    convert_checkpoint.py scrl_1000ep.pth backbone.pth --report report.json
    train_net.py --config-file ... train.backbone_weights=backbone.pth
  back to the released format
    convert_checkpoint.py converted.pth released.pth --to released
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = tool_parser(__doc__, EXAMPLES)
    parser.add_argument("input", metavar="IN", help="the file to convert")
    parser.add_argument("output", metavar="OUT", help="the .pth file to write")
    parser.add_argument(
        "--to",
        choices=("project", "released"),
        default="project",
        help="the format of the output; default: project",
    )
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--keep-91",
        action="store_true",
        help="keep all 91 logits of a released classifier: COCO's 80 classes first, the 11 of no "
        "class behind them, left out of the detections",
    )
    classes.add_argument(
        "--keep-class-ids",
        action="store_true",
        help="leave the class logits as they are, for detectors of other data than COCO",
    )
    parser.add_argument(
        "--keep-ratio",
        type=float,
        metavar="RHO",
        help="keeping ratio in (0, 1] to store for a Sparse DETR; default: that of its training",
    )
    parser.add_argument("--report", metavar="FILE", help="write what became of every key, as JSON")
    options = parser.parse_args(arguments)
    if options.keep_ratio is not None and not 0.0 < options.keep_ratio <= 1.0:
        parser.error(f"--keep-ratio is {options.keep_ratio}, expected above 0 and at most 1")
    if options.to == "released" and (options.keep_91 or options.keep_ratio is not None):
        parser.error("--keep-91 and --keep-ratio are for the way from released files")
    return options


def convert(options: argparse.Namespace) -> None:
    """Converts, and prints the summary and what to do next."""
    from sparse_detr.checkpoint.class_rows import CLASSES_80, CLASSES_91, CLASSES_KEPT
    from sparse_detr.checkpoint.conversion import convert_checkpoint

    classes = CLASSES_91 if options.keep_91 else CLASSES_80
    report = convert_checkpoint(
        options.input,
        options.output,
        to_released=options.to == "released",
        classes=CLASSES_KEPT if options.keep_class_ids else classes,
        keep_ratio=options.keep_ratio,
        report_file=options.report,
    )
    print(report.summary())
    print(f"Written: {options.output}")
    if report.direction != "to released":
        print(report.next_step(options.output))


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after the conversion."""
    options = parse_arguments(arguments)
    return run_tool(lambda: convert(options))


if __name__ == "__main__":
    sys.exit(main())
