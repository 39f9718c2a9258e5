#!/usr/bin/env python3
"""Checks a COCO-format data set: annotations, image files, and files shared with another split.

Exit status: 0 without errors (warnings are printed), 1 with errors, 2 when it cannot be read.
"""

from __future__ import annotations

import argparse
import sys

from sparse_detr.data.checker import FILE_CHECKS, check_dataset


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", help="COCO annotation file")
    parser.add_argument("images", help="folder of the images")
    parser.add_argument("--num-classes", type=int, help="class count of the model")
    parser.add_argument(
        "--files",
        choices=FILE_CHECKS,
        default="decode",
        help="what to look at: nothing, whether files exist, or every pixel (default)",
    )
    parser.add_argument("--max-images", type=int, help="look at the first so many files only")
    parser.add_argument("--other-json", help="annotation file of the other split")
    parser.add_argument("--other-images", help="image folder of the other split, if another")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after printing the report."""
    options = parse_arguments(arguments)
    try:
        report = check_dataset(
            options.json,
            options.images,
            num_classes=options.num_classes,
            files=options.files,
            max_images=options.max_images,
            other=options.other_json,
            other_root=options.other_images,
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.format())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
