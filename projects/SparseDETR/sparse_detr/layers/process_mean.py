"""The mean of a number over the processes of a training run."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor


def mean_over_processes(values: Tensor) -> Tensor:
    """Gives the mean over all processes; with one process the values themselves.

    Args:
        values: (...) of this process, without gradient; may be overwritten.

    Returns:
        (...), the same in every process.
    """
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(values)
        values = values / comm.get_world_size()
    return values
