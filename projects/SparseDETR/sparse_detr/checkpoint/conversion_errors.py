"""What a conversion cannot go on from, in one message."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from ..engine.errors import UserError

_SHOWN = 4


class ConversionError(UserError):
    """A file that is not what it would have to be; nothing was written."""


def require_no_leftover(keys: Sequence[str], known: Collection[str]) -> None:
    """Raises where keys have no place, with the nearest known names.

    Args:
        keys: Keys of the file that no rule knows.
        known: Names that would have been understood.

    Raises:
        ConversionError: There is one.
    """
    if not keys:
        return
    rows = []
    for key in keys[:_SHOWN]:
        near = difflib.get_close_matches(key, known, n=2, cutoff=0.6)
        rows.append(f"{key} (nearest: {', '.join(near)})" if near else key)
    raise ConversionError(f"{_count(keys)} without a place: {_listed(rows, keys)}")


def require_all(names: Sequence[str], of_what: str) -> None:
    """Raises where names are missing.

    Args:
        names: What is missing.
        of_what: What the names belong to.

    Raises:
        ConversionError: There is one.
    """
    if names:
        raise ConversionError(
            f"{_count(names)} of {of_what} missing in the file: {_listed(names[:_SHOWN], names)}"
        )


def require_shapes(
    found: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], keys: Mapping[str, str]
) -> None:
    """Raises where a tensor has another shape than its place.

    Args:
        found: Tensors by the name of their place.
        expected: Shapes by name.
        keys: Key of the file by name.

    Raises:
        ConversionError: One differs.
    """
    wrong = [
        f"{keys[name]} has shape {list(tensor.shape)}, expected {list(expected[name])}"
        for name, tensor in found.items()
        if list(tensor.shape) != list(expected[name])
    ]
    if wrong:
        raise ConversionError(f"{_count(wrong)} of another shape: {_listed(wrong[:_SHOWN], wrong)}")


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises where a tensor holds NaN or infinity.

    Args:
        weights: Tensors by key.

    Raises:
        ConversionError: One does.
    """
    wrong = [key for key, t in weights.items() if t.is_floating_point() and not t.isfinite().all()]
    if wrong:
        raise ConversionError(
            f"{_count(wrong)} with NaN or infinity, so the file is damaged or its training "
            f"diverged: {_listed(wrong[:_SHOWN], wrong)}"
        )


def _count(items: Sequence[str]) -> str:
    return "1 key" if len(items) == 1 else f"{len(items)} keys"


def _listed(shown: Sequence[str], items: Sequence[str]) -> str:
    more = f" and {len(items) - len(shown)} more" if len(items) > len(shown) else ""
    return ", ".join(shown) + more
