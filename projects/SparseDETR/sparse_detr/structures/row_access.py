"""Reading and writing rows of tokens: whole rows at a time, all images at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def flat_rows(indices: Tensor, num_rows: int) -> Tensor:
    """Positions in the (B * N) rows of all images.

    Args:
        indices: (B, K) int64 into the rows of each image.
        num_rows: Rows N of an image.

    Returns:
        (B * K,) int64.
    """
    if indices.shape[0] > 1:
        first = torch.arange(indices.shape[0], device=indices.device) * num_rows
        indices = indices + first[:, None]
    return indices.reshape(-1)


def gather_rows(values: Tensor, indices: Tensor) -> Tensor:
    """Rows of each image.

    Args:
        values: (B, N, ...).
        indices: (B, K) int64.

    Returns:
        (B, K, ...).
    """
    rows = values.flatten(0, 1).index_select(0, flat_rows(indices, values.shape[1]))
    return rows.view(*indices.shape, *values.shape[2:])


def leading_rows(counts: Sequence[int], num_rows: int, device: torch.device) -> Tensor | None:
    """Positions, in the (B * K) rows of all images, of the first rows of each image.

    Args:
        counts: B numbers of rows to take, on the host.
        num_rows: Rows K of an image.
        device: Where the positions are wanted.

    Returns:
        (sum of counts,) int64, or None where every row is taken.
    """
    if all(count == num_rows for count in counts):
        return None
    starts = range(0, len(counts) * num_rows, num_rows)
    # On the host first: one transfer serves all images.
    own = [torch.arange(start, start + n) for start, n in zip(starts, counts, strict=True)]
    return torch.cat(own).to(device)
