"""The command line of ``train_net.py``."""

from __future__ import annotations

import argparse
import os
import sys

# Those of sparse_detr.inference.optimize_for_inference, whose import takes seconds.
PRECISIONS = ("exact", "bfloat16-backbone", "bfloat16")

_EPILOG = """
examples:
  train on one GPU, or on the CPU where there is none
    train_net.py --config-file sparse_detr/sparse_detr_r50_rho10_50ep
  8 GPUs, another output folder
    train_net.py --config-file ... --num-gpus 8 train.output_dir=output/run1
  go on after an interruption
    train_net.py --config-file ... --resume
  evaluate a checkpoint with another keeping ratio
    train_net.py --config-file ... --eval-only train.init_checkpoint=model.pth model.keep_ratio=0.3
  other forms of keeping ratio (docs/sparsity_control.md): per level, score mass, GFLOP budget
    train_net.py --config-file ... --eval-only model.keep_ratio=levels:0.1,0.3,0.5,1
    train_net.py --config-file ... --eval-only model.keep_ratio=mass:0.9,0.05-0.5
    train_net.py --config-file ... --eval-only model.keep_ratio=gflops:100
  with folded batch norms and rearranged weights, faster
    train_net.py --config-file ... --eval-only --optimize exact train.init_checkpoint=model.pth
  20 iterations and a small evaluation, to see that everything is in place
    train_net.py --config-file ... train.fast_dev_run=true

exit codes: 0 done; 1 the run failed (results below train.expected_results, loss not finite, or a
bug with its traceback); 2 the input has to be corrected (the message says what).
"""


def default_dist_url() -> str:
    """Gives the address where the processes of one machine meet; one port per user."""
    user = os.getuid() if sys.platform != "win32" else 1
    return f"tcp://127.0.0.1:{2**15 + 2**14 + user % 2**14}"


def build_parser() -> argparse.ArgumentParser:
    """Gives the parser of ``train_net.py``."""
    parser = argparse.ArgumentParser(
        prog="train_net.py",
        description="Train or evaluate a detector of this project.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config-file",
        required=True,
        metavar="FILE_OR_NAME",
        help="path of a config, or its name below configs/ (with or without .py)",
    )
    parser.add_argument(
        "--eval-only",
        action="store_true",
        help="evaluate and stop: train.init_checkpoint=FILE of this command line, else the last "
        "checkpoint of train.output_dir, else train.init_checkpoint of the config",
    )
    parser.add_argument(
        "--optimize",
        choices=PRECISIONS,
        metavar="PRECISION",
        help="with --eval-only: make the detector faster first; exact (the same detections), "
        "bfloat16-backbone or bfloat16",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="with --optimize: compile the backbone too, which takes minutes",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last good checkpoint of train.output_dir; starts anew if there "
        "is none",
    )
    _add_process_options(parser)
    parser.add_argument(
        "--traceback",
        action="store_true",
        help="show the Python traceback of input errors as well",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="changes to the config, for example train.max_iter=20; unknown keys are errors, "
        "+key=value adds one",
    )
    return parser


def _add_process_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-gpus",
        type=int,
        default=1,
        metavar="N",
        help="processes per machine: one GPU each, or CPU processes (gloo) with train.device=cpu "
        "or without a GPU",
    )
    parser.add_argument(
        "--num-machines", type=int, default=1, metavar="M", help="number of machines"
    )
    parser.add_argument(
        "--machine-rank", type=int, default=0, metavar="R", help="number of this machine, from 0"
    )
    parser.add_argument(
        "--dist-url",
        default=default_dist_url(),
        metavar="URL",
        help="where the processes meet, for example tcp://host:port; 'auto' picks a free local "
        "port",
    )


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Gives the parsed command line.

    Args:
        argv: The arguments without the program name; None takes those of the process.

    Returns:
        The namespace; argparse itself ends the process with code 2 on wrong usage and 0 after
        ``--help``.
    """
    parser = build_parser()
    arguments = parser.parse_intermixed_args(argv)
    if arguments.optimize and not arguments.eval_only:
        parser.error("--optimize needs --eval-only: an optimised detector cannot be trained")
    if arguments.compile and not arguments.optimize:
        parser.error("--compile needs --optimize, for example --optimize exact")
    if arguments.num_gpus < 1:
        parser.error(
            f"--num-gpus is {arguments.num_gpus}, expected 1 or more (the CPU counts as 1)"
        )
    if arguments.num_machines < 1:
        parser.error(f"--num-machines is {arguments.num_machines}, expected 1 or more")
    if not 0 <= arguments.machine_rank < arguments.num_machines:
        parser.error(
            f"--machine-rank is {arguments.machine_rank}, expected 0 to "
            f"{arguments.num_machines - 1}"
        )
    if arguments.num_machines > 1 and arguments.dist_url == "auto":
        parser.error("--dist-url auto works on one machine only; give tcp://HOST:PORT of machine 0")
    return arguments
