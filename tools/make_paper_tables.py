#!/usr/bin/env python3
"""Counts the released models and writes docs/paper_tables.md: paper, release and this project.

What was counted is kept as JSON beside the page. Exit status: 0 done, 1 a row is not as the
release prints it, 2 when the input has to be corrected (the message says what).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "paper_tables.md"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--sizes",
        type=Path,
        metavar="CSV",
        help="sizes of the images that means are taken over (columns height and width, pixels); "
        "the page in the repository has the first 100 images of COCO val2017",
    )
    source.add_argument(
        "--from-figures",
        action="store_true",
        help="count nothing: write the page from the JSON beside it",
    )
    parser.add_argument(
        "--output", type=Path, default=PAGE, metavar="FILE", help=f"default: docs/{PAGE.name}"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after writing the page."""
    options = parse_arguments(arguments)
    from sparse_detr.analysis.counted_page import CountedPage, Figures, tell
    from sparse_detr.analysis.image_sizes import evaluation_resize, read_image_sizes
    from sparse_detr.analysis.paper_tables import check_figures, render_page
    from sparse_detr.analysis.released_models import RELEASED_MODELS, count_released_models
    from sparse_detr.config.loading import load_config

    def count() -> Figures:
        resize = evaluation_resize(load_config(RELEASED_MODELS[0].config))
        images = [resize(size) for size in read_image_sizes(options.sizes)]
        return count_released_models(images, tell)

    page = CountedPage(render_page, check_figures, "not as the release prints it")
    return page.write(options.output, None if options.from_figures else count)


if __name__ == "__main__":
    sys.exit(main())
