#!/usr/bin/env python3
"""Writes a drawn-shapes data set (COCO json and PNG files), unless it is there already."""

from __future__ import annotations

import argparse
import sys

from sparse_detr.data.shapes import generate_shapes_dataset


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("--num-images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        default=[160],
        metavar="PIXELS",
        help="side of square images, or smallest and largest side of varying ones",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after generating the data set."""
    options = parse_arguments(arguments)
    sizes = options.image_size
    try:
        folder = generate_shapes_dataset(
            options.root, options.num_images, options.seed, sizes[0] if len(sizes) == 1 else sizes
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.num_images} images of drawn shapes are in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
