#!/usr/bin/env python3
"""Counts the models of all systems and writes docs/comparison.md: published, released and here.

What was counted is kept as JSON beside the page. Exit status: 0 done, 1 a row is not as counted on
the released code, 2 when the input has to be corrected (the message says what).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "comparison.md"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
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
    from sparse_detr.analysis.compared_models import count_compared_models
    from sparse_detr.analysis.comparison_page import differing_rows, render_comparison
    from sparse_detr.analysis.counted_page import CountedPage, Figures, tell

    def count() -> Figures:
        return {"models": count_compared_models(tell=tell)}

    page = CountedPage(render_comparison, differing_rows, "not as counted on the released code")
    return page.write(options.output, None if options.from_figures else count)


if __name__ == "__main__":
    sys.exit(main())
