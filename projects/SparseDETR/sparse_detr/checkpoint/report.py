"""What a conversion did to every key, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

MAPPED = "mapped"
REINITIALISED = "re-initialised"
IGNORED = "ignored"
ADDED = "added"

_ACTIONS = (MAPPED, ADDED, REINITIALISED, IGNORED)
_SHOWN = 3


@dataclass(frozen=True)
class KeyEntry:
    """What became of one key.

    Attributes:
        key: Name in the input; for what is not in the input the name in the output.
        action: "mapped", "re-initialised" (not in the input, values of an untrained model),
            "ignored" or "added" (not in the input, but known).
        target: Name in the output; empty for ignored keys.
        note: Why it was not simply mapped, or what was changed in it.
    """

    key: str
    action: str
    target: str = ""
    note: str = ""


@dataclass
class ConversionReport:
    """The whole story of a conversion.

    Attributes:
        recognised: What the input is.
        direction: "from released" or "to released".
        entries: One per key of the input's weights, and one per key that only the output has.
        remarks: What could not be read from the file and was assumed, and what was lost.
        config: Name of the config to use, empty for a backbone alone.
        overrides: Its changes.
    """

    recognised: str
    direction: str
    entries: list[KeyEntry] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    config: str = ""
    overrides: tuple[str, ...] = ()

    def mapped(self, key: str, target: str, note: str = "") -> None:
        """Notes that ``key`` became ``target``."""
        self.entries.append(KeyEntry(key, MAPPED, target, note))

    def ignored(self, key: str, reason: str) -> None:
        """Notes that ``key`` was left out."""
        self.entries.append(KeyEntry(key, IGNORED, "", reason))

    def reinitialised(self, target: str, reason: str) -> None:
        """Notes that ``target``, or a part of it, has the values of an untrained model."""
        self.entries.append(KeyEntry(target, REINITIALISED, target, reason))

    def added(self, target: str, reason: str) -> None:
        """Notes that ``target`` is not in the input, but follows from what is."""
        self.entries.append(KeyEntry(target, ADDED, target, reason))

    def annotate(self, target: str, note: str) -> None:
        """Notes what was changed in the tensor that became ``target``."""
        self.entries = [
            replace(entry, note=note) if entry.target == target else entry for entry in self.entries
        ]

    def count(self, action: str) -> int:
        """Keys with that action."""
        return sum(entry.action == action for entry in self.entries)

    def as_json(self, source: str, target: str) -> str:
        """The report as JSON text.

        Args:
            source: The input file.
            target: The output file.
        """
        data: dict[str, Any] = {
            "input": source,
            "output": target,
            "recognised": self.recognised,
            "direction": self.direction,
            "config": self.config,
            "overrides": list(self.overrides),
            "counts": {action: self.count(action) for action in _ACTIONS},
            "remarks": self.remarks,
            "keys": [
                {"key": e.key, "action": e.action, "target": e.target, "note": e.note}
                for e in self.entries
            ],
        }
        return json.dumps(data, indent=1) + "\n"

    def next_step(self, target: str) -> str:
        """How to use the output, for the terminal.

        Args:
            target: The output file.
        """
        if not self.config:
            return f"Use it as: train_net.py --config-file ... train.backbone_weights={target}"
        changes = " ".join(self.overrides)
        return (
            f"Config: {self.config} {changes}\n"
            f"Use it as: train_net.py --config-file {target} --eval-only"
        )

    def summary(self) -> str:
        """A few lines for the terminal."""
        lines = [f"Recognised: {self.recognised}", f"  {self.count(MAPPED)} keys mapped"]
        lines += _by_note(self.entries, MAPPED)
        for action in _ACTIONS[1:]:
            if self.count(action):
                lines.append(f"  {self.count(action)} keys {action}")
                lines += _by_note(self.entries, action)
        lines += [f"  note: {remark}" for remark in self.remarks]
        return "\n".join(lines)


def _by_note(entries: Sequence[KeyEntry], action: str) -> list[str]:
    counts = Counter(entry.note for entry in entries if entry.action == action and entry.note)
    rows = []
    for note, count in counts.items():
        keys = [entry.key for entry in entries if entry.action == action and entry.note == note]
        more = ", ..." if count > _SHOWN else ""
        rows.append(f"    {count} {note}: {', '.join(keys[:_SHOWN])}{more}")
    return rows
