"""Scalars that the model reports to Detectron2's event storage while it trains."""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.utils.events import get_event_storage
from torch import Tensor


def log_scalars(values: Mapping[str, Tensor]) -> None:
    """Puts scalars into the active event storage; does nothing where there is none.

    Args:
        values: Scalars by name.
    """
    try:
        storage = get_event_storage()
    except AssertionError:  # Detectron2's way of saying that no trainer is running
        return
    for name, value in values.items():
        storage.put_scalar(name, float(value))
