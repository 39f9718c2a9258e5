"""Pages of counted figures: counted once, kept as JSON beside the page, held against the release.

Role: shared by the programs that write ``docs/paper_tables.md`` and ``docs/comparison.md``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..benchmarking.fresh_process import FreshProcessError
from ..engine.checkpoint_file import write_text
from ..engine.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE

Figures = dict[str, Any]


@dataclass(frozen=True)
class CountedPage:
    """How a page is made from its figures.

    Attributes:
        render: The page's text.
        differing: Titles of the rows that are not as they have to be.
        complaint: What is said of such a row, in front of its title.
    """

    render: Callable[[Figures], str]
    differing: Callable[[Figures], list[str]]
    complaint: str

    def write(self, output: Path, count: Callable[[], Figures] | None) -> int:
        """Gives the exit status after writing the page, and its figures if they were counted.

        Args:
            output: The page; the figures are in the JSON file beside it.
            count: Counts figures, which replace those of the same keys in the file; None takes
                all that are kept.
        """
        stored = output.with_suffix(".json")
        try:
            figures: Figures = {}
            if count is None or stored.exists():
                figures = json.loads(stored.read_text(encoding="utf-8"))
            if count is not None:
                figures |= count()
                write_text(json.dumps(figures, indent=1) + "\n", stored)
            write_text(self.render(figures), output)
        except FreshProcessError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_FAILED
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_USAGE
        wrong = self.differing(figures)
        for row in wrong:
            print(f"{self.complaint}: {row}", file=sys.stderr)
        return EXIT_FAILED if wrong else EXIT_OK


def tell(line: str) -> None:
    """Says how far the counting is, on stderr."""
    print(line, file=sys.stderr)
