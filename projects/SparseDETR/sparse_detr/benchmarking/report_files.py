"""What the benchmark programs do alike with a report: write it, head it, tell whether it is whole.

Role in the flow: the programs in ``tools`` fill a report, a dict with ``machine`` and ``notes``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .fresh_process import FreshProcessError
from .machine import machine_lines

_STOPPED = "stopped"


def save_report(report: dict[str, Any], file: Path | None) -> None:
    """Writes what was measured until now, if a file was asked for."""
    if file is not None:
        file.write_text(json.dumps(report, indent=1) + "\n")


def note_stop(report: dict[str, Any], error: FreshProcessError) -> None:
    """Notes why a measurement ended early; what was measured until then is worth keeping."""
    report["notes"].append(f"{_STOPPED}: {error}")
    print(error, file=sys.stderr)


def was_stopped(report: dict[str, Any]) -> bool:
    """Whether a measurement of the report ended early."""
    return any(note.startswith(_STOPPED) for note in report["notes"])


def print_headings(reports: list[dict[str, Any]], markdown: bool) -> None:
    """Prints machine and notes of each report."""
    for report in reports:
        mark = "- " if markdown else ""
        lines = [*machine_lines(report["machine"]), *report["notes"]]
        print("\n".join(mark + line for line in lines), end="\n\n")
