"""Rates at which this machine copies memory and reads rows at random places of it.

Role in the flow: deformable attention reads short rows at scattered places; what share of the
machine's own rate it reaches says how much is left to gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .spread import Spread
from .timing import Timer

# A row is what one head reads of one cell: 32 float32 numbers.
ROW_ELEMENTS = 32
# Rows that are added up, so that next to nothing is written: heads' samples of one query.
_ROWS_PER_SUM = 64
_ROWS_READ = 2**18


@dataclass(frozen=True)
class MemoryRates:
    """Bytes per second.

    Attributes:
        copy: Of a copy that no cache holds, read and written bytes together.
        gather: Of rows read at random places, by size of the table they lie in, bytes.
    """

    copy: Spread
    gather: dict[int, Spread]


def measure_memory_rates(
    timer: Timer,
    device: torch.device,
    table_bytes: tuple[int, ...],
    copy_bytes: int = 2**28,
) -> MemoryRates:
    """Gives the rates on a device, with the threads that torch is set to.

    Args:
        timer: Measures.
        device: Where.
        table_bytes: Sizes of the tables to read rows from.
        copy_bytes: Size of the source of the copy; far beyond the caches.
    """
    copy = _copy_rate(timer, device, copy_bytes)
    return MemoryRates(copy, {size: _gather_rate(timer, device, size) for size in table_bytes})


def _copy_rate(timer: Timer, device: torch.device, size: int) -> Spread:
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    seconds = timer.compare({"copy": lambda: target.copy_(source)}).by_name["copy"].seconds
    return Spread.of([2 * size / second for second in seconds])


def _gather_rate(timer: Timer, device: torch.device, table_bytes: int) -> Spread:
    """Rows of 128 bytes read at random places and added up, 64 at a time."""
    rows = max(1, table_bytes // (4 * ROW_ELEMENTS))
    table = torch.ones(rows, ROW_ELEMENTS, device=device)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(rows, (_ROWS_READ // _ROWS_PER_SUM, _ROWS_PER_SUM), generator=generator)
    index = index.to(device)
    out = torch.empty(_ROWS_READ, ROW_ELEMENTS, device=device)
    flat = index.flatten()
    # Two ways, since neither is the fastest everywhere; the second also writes what it reads.
    times = timer.compare(
        {
            "sum": lambda: F.embedding_bag(index, table, mode="sum"),
            "select": lambda: torch.index_select(table, 0, flat, out=out),
        }
    )
    moved = 4 * ROW_ELEMENTS * _ROWS_READ
    best = min(times.by_name.values(), key=lambda candidate: candidate.milliseconds.median)
    return Spread.of([moved / second for second in best.seconds])
