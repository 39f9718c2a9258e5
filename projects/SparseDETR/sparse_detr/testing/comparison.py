"""Collects differences between computed and reference arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]


@dataclass
class Comparison:
    """Differences of one case.

    Attributes:
        case: Name of the case.
        tolerance: Largest allowed error, absolute below 1 and relative above.
        worst: Largest error so far.
        worst_name: Where it stands.
        count: Arrays compared.
        misses: What did not match, in words.
    """

    case: str
    tolerance: float = 1e-9
    worst: float = 0.0
    worst_name: str = "-"
    count: int = 0
    misses: list[str] = field(default_factory=list)

    def close(self, name: str, got: Any, expected: Any, tolerance: float | None = None) -> None:
        """Compares numbers; infinities must stand at the same places.

        Args:
            name: Of the array, for the report.
            got: Computed.
            expected: Reference.
            tolerance: Instead of the case's own, for arrays stored in lower precision.
        """
        self.count += 1
        a, b = as_array(got), as_array(expected)
        if a.shape != b.shape:
            self.misses.append(f"{name}: shape {a.shape}, expected {b.shape}")
            return
        if a.size == 0:
            return
        a, b = a.astype(np.float64), b.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            error = np.where(same, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(b)))
        worst = float("inf") if np.isnan(error).any() else float(error.max())
        limit = self.tolerance if tolerance is None else tolerance
        if tolerance is None and worst > self.worst:
            self.worst, self.worst_name = worst, name
        if not worst <= limit:
            self.misses.append(f"{name}: error {worst:.2e} above {limit:.0e}")

    def same(self, name: str, got: Any, expected: Any) -> None:
        """Compares integers, which must be identical."""
        self.count += 1
        a, b = as_array(got), as_array(expected)
        if a.shape != b.shape:
            self.misses.append(f"{name}: shape {a.shape}, expected {b.shape}")
        elif not np.array_equal(a, b):
            self.misses.append(f"{name}: {int((a != b).sum())} of {a.size} entries differ")

    @property
    def passed(self) -> bool:
        """Whether something was compared and everything matched."""
        return self.count > 0 and not self.misses

    def line(self) -> str:
        """One line for people."""
        verdict = "ok  " if self.passed else "MISS"
        text = (
            f"{verdict} {self.case}: {self.count} arrays, worst error {self.worst:.1e} "
            f"({self.worst_name}), tolerance {self.tolerance:.0e}"
        )
        return "\n".join([text, *(f"       {miss}" for miss in self.misses[:20])])


Case = tuple[str, Callable[[], list[Comparison]]]
"""Name of a case, and what runs it."""


def as_array(value: Any) -> Array:
    """A numpy array of a tensor, of a list of tensors, or of numbers."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
        return torch.stack(list(value)).detach().cpu().numpy()
    return np.asarray(value)
