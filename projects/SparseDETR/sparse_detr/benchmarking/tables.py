"""Tables for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Gives a table with aligned columns; the first column to the left, the others to the right."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    lines.insert(1, "-" * sum([*widths, 2 * (len(widths) - 1)]))
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Gives a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """Gives a table in Markdown or for the terminal."""
    return markdown_table(header, rows) if markdown else text_table(header, rows)


def significant(value: float, digits: int = 3) -> str:
    """Gives a number with some significant digits and without an exponent."""
    if value == 0:
        return "0"
    decimals = digits - 1
    magnitude = abs(value)
    while magnitude >= 10 and decimals > 0:
        magnitude /= 10
        decimals -= 1
    while magnitude < 1 and decimals < 8:
        magnitude *= 10
        decimals += 1
    return f"{value:.{decimals}f}"


def spread_text(spread: Mapping[str, Any], suffix: str = "") -> str:
    """Gives "median (smallest to largest)" of a :class:`Spread` that went through JSON."""
    middle, low, high = (
        significant(float(spread[key])) for key in ("median", "smallest", "largest")
    )
    return f"{middle}{suffix} ({low} to {high})"


def megabytes(count: float) -> str:
    """Gives a number of bytes in MB, millions of bytes."""
    return significant(count / 1e6)
