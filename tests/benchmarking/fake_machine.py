"""A clock and a machine whose processors do what a test says."""

from __future__ import annotations

from sparse_detr.benchmarking.disturbance import CpuUse, DisturbanceWatch


class FakeMachine:
    """Time passes only by work and sleep; others use processors while `others` says so."""

    def __init__(self, cores: int = 2) -> None:
        self.now = 0.0
        self.own = 0.0
        self.busy = 0.0
        self.others = 0.0
        self.cores = cores
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        """This process works on one processor."""
        self.now += seconds
        self.own += seconds
        self.busy += seconds * (1 + self.others)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.busy += seconds * self.others

    def watch(self, threads: int = 2) -> DisturbanceWatch:
        return DisturbanceWatch(lambda: CpuUse(self.busy, self.own), self.cores, threads)
