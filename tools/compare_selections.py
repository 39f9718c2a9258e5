#!/usr/bin/env python3
"""Says how the kept tokens of two checkpoints differ: overall, per level and per object size.

A and B are checkpoints (.pth), or kept tokens that an evaluation stored (.npz), see
docs/evaluation.md. Two keeping ratios of one checkpoint can be compared too. Exit status: 0 done,
2 when the input has to be corrected (the message says what).
"""

from __future__ import annotations

import argparse
import json
import sys
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
  two checkpoints of one training
    compare_selections.py --config-file output/quickstart/config.yaml \\
        output/quickstart/model_0001249.pth output/quickstart/model_final.pth
  trained with other keeping ratios, compared with 0.1 of the tokens kept by both
    compare_selections.py a.pth b.pth --config-file sparse_detr/sparse_detr_r50_rho10_50ep \\
        --config-file-b sparse_detr/sparse_detr_r50_rho30_50ep --keep-ratio 0.1
  kept tokens that were stored before
    compare_selections.py run1/inference/kept_tokens.npz run2/inference/kept_tokens.npz
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = tool_parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("a", metavar="A", help="checkpoint or kept_tokens.npz")
    add("b", metavar="B", help="the other one")
    add("--config-file", metavar="FILE_OR_NAME", help="config of the checkpoints")
    add("--config-file-b", metavar="FILE_OR_NAME", help="config of B, where it differs")
    add("--keep-ratio", metavar="RHO", help="of checkpoints, in place of the config's")
    add("--keep-ratio-b", metavar="RHO", help="of B, where it differs")
    add_device_option(add)
    add("--num-images", type=int, metavar="N",
        help="evaluate checkpoints on the first N images (default: all)")  # fmt: skip
    add("--output", metavar="FOLDER", default="selections",
        help="for what a checkpoint keeps, A/kept_tokens.npz and B/kept_tokens.npz, and for "
        "comparison.json (default: selections)")  # fmt: skip
    add("--show-images", type=int, default=10, metavar="N",
        help="list the N images that differ most (default: 10)")  # fmt: skip
    add("--markdown", action="store_true", help="print the tables in Markdown")
    add("overrides", nargs="*", metavar="key=value", help="changes to the configs")
    options = parser.parse_intermixed_args(arguments)
    check_numbers(parser, options, num_images=1, show_images=0)
    for side in (options.a, options.b):
        if "=" in side and not Path(side).exists():
            parser.error(f"expected the files A and B, got {side!r} in their place")
    options.config_file_b = options.config_file_b or options.config_file
    options.keep_ratio_b = options.keep_ratio_b or options.keep_ratio
    for side, config in ((options.a, options.config_file), (options.b, options.config_file_b)):
        if not side.endswith(".npz") and config is None:
            parser.error(f"{side} is a checkpoint, which needs its --config-file")
    return options


def selections(
    file: str, config_file: str, keep_ratio: str | None, folder: Path, options: argparse.Namespace
) -> dict[Any, Any]:
    """Gives the kept tokens by image id: those stored in a file, or those of a checkpoint.

    Raises:
        UserError: The file cannot be used, or the model keeps all tokens.
    """
    from sparse_detr.engine.errors import UserError, user_errors
    from sparse_detr.evaluation.selection_file import load_selections

    if not Path(file).is_file():
        raise UserError(f"{file} does not exist")
    if not file.endswith(".npz"):
        run_checkpoint(file, config_file, keep_ratio, folder, options)
        file = str(folder / "kept_tokens.npz")
    with user_errors("kept tokens", ValueError):
        return load_selections(file)


def run_checkpoint(
    file: str, config_file: str, keep_ratio: str | None, folder: Path, options: argparse.Namespace
) -> None:
    """Stores what a checkpoint keeps in the folder."""
    from sparse_detr.engine.errors import UserError, user_errors
    from sparse_detr.evaluation.checkpoint_evaluation import CheckpointEvaluation
    from sparse_detr.inference.config_reading import run_config
    from sparse_detr.token_selection import as_keep_ratio

    config = run_config(config_file, options.overrides, options.device)
    evaluation = CheckpointEvaluation(
        config, file, folder, options.num_images, with_precision=False
    )
    model = evaluation.model
    if model.keep_ratio is None:
        raise UserError(f"{config_file} keeps all tokens, so there is no selection to compare")
    with user_errors("--keep-ratio", ValueError):
        if keep_ratio is not None:
            model.keep_ratio = as_keep_ratio(keep_ratio)
    count = evaluation.num_images
    print(f"{file}: {count} images, keeping ratio {model.keep_ratio}", flush=True)
    evaluation.run(store_selections=True)


def run(options: argparse.Namespace) -> None:
    """Compares, writes the comparison and says where it is."""
    from sparse_detr.engine.errors import user_errors
    from sparse_detr.evaluation.selection_comparison import compare_selections, comparison_text

    output = Path(options.output)
    first = selections(options.a, options.config_file, options.keep_ratio, output / "A", options)
    second = selections(
        options.b, options.config_file_b, options.keep_ratio_b, output / "B", options
    )
    with user_errors("comparison", ValueError):
        comparison = compare_selections(first, second)
    print(f"A: {options.a}\nB: {options.b}\n")
    print(comparison_text(comparison, options.show_images, options.markdown))
    file = output / "comparison.json"
    record = {"a": options.a, "b": options.b, **comparison.record(options.show_images)}
    with user_errors(f"--output {output}", OSError):
        output.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"\nThe figures are in {file}")


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after the comparison."""
    options = parse_arguments(arguments)
    return run_tool(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
