"""Scalars that the model reports to Detectron2's event storage while it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping

from detectron2.utils.events import get_event_storage
from torch import Tensor


def log_scalars(values: Mapping[str, Tensor]) -> None:
    """Puts scalars into the active event storage; does nothing where there is none.

    Args:
        values: Scalars by name. What is not finite (Corr of a level without attention) is left
            out: it would spoil the storage's running medians.
    """
    try:
        storage = get_event_storage()
    except AssertionError:  # Detectron2's way of saying that no trainer is running
        return
    for name, tensor in values.items():
        value = float(tensor)
        if math.isfinite(value):
            storage.put_scalar(name, value)
