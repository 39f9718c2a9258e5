"""Times of several candidates, measured in turn in blocks that nobody disturbed.

A round runs one block of each candidate, A B C A B C ..., so that the slow changes of a machine
(frequency, neighbours, temperature) fall on all of them alike. A block repeats one candidate for a
while; a block that other programs disturbed is repeated. Ratios are taken within a round.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .disturbance import DisturbanceWatch
from .spread import Spread, pairwise_ratios

Call = Callable[[], object]
# Runs calls a number of times and gives the seconds that one took.
RunBlock = Callable[[Call, int], float]


@dataclass(frozen=True)
class TimingPlan:
    """How much to measure.

    Attributes:
        rounds: Blocks of each candidate that count.
        block_seconds: Least length of a block.
        warmup_calls: Calls of each candidate before anything is measured.
        warmup_seconds: A slow candidate warms up once, and again only while this is not used up.
        patience_seconds: Time that one comparison may spend on disturbed blocks. Once it is used
            up, blocks are taken as they are, and counted as disturbed.
    """

    rounds: int = 7
    block_seconds: float = 0.15
    warmup_calls: int = 3
    warmup_seconds: float = 1.0
    patience_seconds: float = 10.0


@dataclass
class CandidateTimes:
    """Times of one candidate.

    Attributes:
        seconds: Per call, one of each round.
        calls_per_block: Calls that a block repeats.
        rejected: Disturbed blocks that were thrown away.
        disturbed: Rounds whose block was disturbed and taken all the same.
        page_faults: Pages of fresh memory per call, one number of each round. Memory that a C
            library gives back after a call and takes again costs as many as it has pages, and
            whether it does that changes within one process.
    """

    seconds: list[float] = field(default_factory=list)
    calls_per_block: int = 1
    rejected: int = 0
    disturbed: int = 0
    page_faults: list[float] = field(default_factory=list)

    @property
    def milliseconds(self) -> Spread:
        """Median and extremes over the rounds."""
        return Spread.of(self.seconds).scaled(1000)


@dataclass(frozen=True)
class ComparedTimes:
    """Times of all candidates of one comparison.

    Attributes:
        by_name: Times by candidate.
    """

    by_name: dict[str, CandidateTimes]

    def speedup(self, fast: str, slow: str) -> Spread:
        """How many times faster ``fast`` is than ``slow``, round by round."""
        return pairwise_ratios(self.by_name[slow].seconds, self.by_name[fast].seconds)

    @property
    def disturbed(self) -> int:
        """Blocks that count although others disturbed them."""
        return sum(times.disturbed for times in self.by_name.values())

    @property
    def rejected(self) -> int:
        """Blocks that were thrown away because others disturbed them."""
        return sum(times.rejected for times in self.by_name.values())


def count_page_faults() -> int:
    """Gives how many pages of memory this process has touched for the first time so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Timer:
    """Measures candidates against each other.

    Args:
        plan: How much to measure.
        watch: Judges which blocks were disturbed.
        run_block: Times one block; the CPU's and the GPU's ways are in ``blocks``.
        clock: Seconds.
        sleep: Waits a number of seconds, while others are busy.
        page_faults: How many there were so far.
    """

    def __init__(
        self,
        plan: TimingPlan,
        watch: DisturbanceWatch,
        run_block: RunBlock,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
        page_faults: Callable[[], int] = count_page_faults,
    ) -> None:
        self.plan = plan
        self.watch = watch
        self.run_block = run_block
        self.clock = clock
        self.sleep = sleep
        self.page_faults = page_faults

    def compare(self, candidates: dict[str, Call]) -> ComparedTimes:
        """Times of the candidates, interleaved.

        Args:
            candidates: What to call, by name, in the order of a round.
        """
        times = {name: CandidateTimes() for name in candidates}
        for name, call in candidates.items():
            times[name].calls_per_block = self._calls_per_block(self._warm_up(call))
        patience = self.plan.patience_seconds
        for _ in range(self.plan.rounds):
            for name, call in candidates.items():
                patience = self._measure_block(call, times[name], patience)
        return ComparedTimes(times)

    def _warm_up(self, call: Call) -> float:
        """Calls until the candidate is warm; gives the seconds of the fastest call."""
        fastest, start = float("inf"), self.clock()
        for _ in range(max(1, self.plan.warmup_calls)):
            fastest = min(fastest, self.run_block(call, 1))
            if self.clock() - start > self.plan.warmup_seconds:
                break
        return fastest

    def _calls_per_block(self, seconds: float) -> int:
        return max(1, round(self.plan.block_seconds / max(seconds, 1e-7)))

    def _measure_block(self, call: Call, times: CandidateTimes, patience: float) -> float:
        """Measures one block; gives the patience that is left."""
        attempt = 0
        while True:
            mark, start = self.watch.start(), self.clock()
            faults = self.page_faults()
            seconds = self.run_block(call, times.calls_per_block)
            faults = self.page_faults() - faults
            disturbed = self.watch.disturbed(mark, self.clock() - start)
            if not disturbed or patience <= 0:
                break
            times.rejected += 1
            self.sleep(min(0.1 * 2**attempt, 2.0))
            attempt += 1
            patience -= self.clock() - start
        times.disturbed += int(disturbed)
        times.seconds.append(seconds)
        times.page_faults.append(faults / times.calls_per_block)
        return patience
