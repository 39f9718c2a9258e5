from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fake_machine import FakeMachine

from sparse_detr.benchmarking.memory_rates import measure_memory_rates
from sparse_detr.benchmarking.timing import Timer, TimingPlan


def test_rates_are_bytes_over_seconds_of_the_fastest_way() -> None:
    machine = FakeMachine()
    durations = iter([2.0, 2.0, 4.0, 1.0, 4.0, 1.0])  # copy; then sum and select in turn

    def run_block(call: Callable[[], object], calls: int) -> float:
        call()
        seconds = next(durations)
        machine.work(seconds)
        return seconds

    timer = Timer(TimingPlan(rounds=1, warmup_calls=1), machine.watch(), run_block, machine.clock)
    rates = measure_memory_rates(timer, torch.device("cpu"), (2**16,), copy_bytes=2**20)

    assert rates.copy.median == pytest.approx(2 * 2**20 / 2.0)
    assert rates.gather[2**16].median == pytest.approx(2**18 * 128 / 1.0)
