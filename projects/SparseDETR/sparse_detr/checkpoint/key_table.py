"""Two-way tables of weight names: one row per group of names, with numbers in braces.

A row pairs the beginnings of names, ``("neck.convs.{i}.norm.", "projections.{i}.1.")`` for example;
what follows is the same on both sides. A field may stand for a shifted number: ``{i+3}`` is ``{i}``
plus three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_FIELD = re.compile(r"\{([a-z])([+-]\d+)?\}")
_Row = tuple[str, str]


@dataclass(frozen=True)
class KeyTable:
    """Names of the weights of one kind of file, and here.

    Attributes:
        rows: (beginning of a released name, beginning of the name here); the first row that fits
            counts.
    """

    rows: tuple[_Row, ...]

    def here(self, released_key: str) -> str | None:
        """The name here of a released one; None where no row fits."""
        return _first(self.rows, released_key)

    def released(self, name: str) -> str | None:
        """The released name of one here; None where no row fits."""
        return _first(((b, a) for a, b in self.rows), name)

    def __add__(self, other: KeyTable) -> KeyTable:
        """The rows of both, these first."""
        return KeyTable(self.rows + other.rows)


def _first(rows: Iterable[_Row], name: str) -> str | None:
    for source, target in rows:
        found = _renamed(source, target, name)
        if found is not None:
            return found
    return None


def _renamed(source: str, target: str, name: str) -> str | None:
    """The name with its beginning exchanged, or None where it begins otherwise."""
    shifts = {field: int(shift or 0) for field, shift in _FIELD.findall(source)}
    pattern = "".join(
        f"(?P<{part}>\\d+)" if part in shifts and len(part) == 1 else re.escape(part)
        for part in _split(source)
    )
    match = re.match(pattern, name)
    if match is None:
        return None
    numbers = {field: int(match[field]) - shift for field, shift in shifts.items()}
    if any(number < 0 for number in numbers.values()):
        return None
    beginning = _FIELD.sub(lambda m: str(numbers[m[1]] + int(m[2] or 0)), target)
    return beginning + name[match.end() :]


def _split(template: str) -> list[str]:
    """Literal parts and field letters of a template, in order."""
    parts, end = [], 0
    for match in _FIELD.finditer(template):
        parts += [template[end : match.start()], match[1]]
        end = match.end()
    return [part for part in [*parts, template[end:]] if part]
