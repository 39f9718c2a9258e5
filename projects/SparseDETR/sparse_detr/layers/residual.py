"""The sum of a residual connection."""

from __future__ import annotations

import torch
from torch import Tensor


def add_update(rows: Tensor, update: Tensor) -> Tensor:
    """Gives ``rows + update``; without gradients in the memory of the update.

    Args:
        rows: (...) what the layer started from.
        update: (...) of the same shape and dtype, fresh from the layer: nobody else may hold it.
    """
    if torch.is_grad_enabled() or update.dtype != rows.dtype:
        return rows + update
    return update.add_(rows)
