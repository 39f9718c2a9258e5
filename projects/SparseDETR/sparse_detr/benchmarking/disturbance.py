"""What other programs did to the processors while something was measured.

Role in the flow: `timing` asks before and after each block, and repeats a disturbed block.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PROC_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class CpuUse:
    """Processor seconds since some moment in the past.

    Attributes:
        machine: Of everything on the machine, time taken by a hypervisor included.
        own: Of this process.
    """

    machine: float
    own: float


def parse_busy_seconds(proc_stat: str, ticks_per_second: int) -> float:
    """Gives the busy seconds of all processors from the text of /proc/stat.

    Args:
        proc_stat: The text; its first line sums over the processors.
        ticks_per_second: Unit of its numbers.
    """
    fields = [int(field) for field in proc_stat.splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]  # idle, and waiting for input or output
    return (sum(fields) - idle) / ticks_per_second


def read_cpu_use() -> CpuUse:
    """Gives the processor seconds used so far. Linux only."""
    busy = parse_busy_seconds(_PROC_STAT.read_text(), os.sysconf("SC_CLK_TCK"))
    own = os.times()
    return CpuUse(busy, own.user + own.system + own.children_user + own.children_system)


def watching_is_possible() -> bool:
    """Whether this system tells what other programs do (Linux does)."""
    return _PROC_STAT.is_file() and hasattr(os, "sysconf")


@dataclass(frozen=True)
class DisturbanceWatch:
    """Judges whether others used too much processor time during an interval.

    Attributes:
        read: Gives the use so far; None where the system does not tell, and nothing is judged.
        cores: Processors that this process may run on.
        threads: Processors that the measured work wants.
        share: Processor time of others that is let pass, per second.
        slack: Processor seconds that are let pass in any case: the clock of /proc/stat is coarse.
    """

    read: Callable[[], CpuUse] | None
    cores: int
    threads: int
    share: float = 0.05
    slack: float = 0.03

    @staticmethod
    def of_this_machine(threads: int) -> DisturbanceWatch:
        """A watch over this machine, for work on a number of threads."""
        return DisturbanceWatch(
            read_cpu_use if watching_is_possible() else None, os.cpu_count() or 1, threads
        )

    @property
    def note(self) -> str:
        """One line that says how blocks are judged, for reports."""
        if self.read is None:
            return (
                "disturbed blocks could not be rejected: this system does not tell what other "
                "programs do (only Linux does)"
            )
        return (
            "blocks in which other programs used more than "
            f"{100 * self._allowed_share:.0f} % of a processor were rejected and repeated"
        )

    @property
    def _allowed_share(self) -> float:
        # What runs on processors that the measured work leaves free disturbs it only through
        # caches and memory.
        return self.share + 0.25 * max(0, self.cores - self.threads)

    def start(self) -> CpuUse | None:
        """Gives the mark to hand to :meth:`disturbed`."""
        return None if self.read is None else self.read()

    def disturbed(self, start: CpuUse | None, seconds: float) -> bool:
        """Whether others used too much since ``start``.

        Args:
            start: What :meth:`start` gave.
            seconds: Length of the interval.
        """
        if self.read is None or start is None:
            return False
        now = self.read()
        others = (now.machine - start.machine) - (now.own - start.own)
        return others > self.slack + self._allowed_share * seconds
