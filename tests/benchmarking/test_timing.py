from __future__ import annotations

import mmap
from collections.abc import Callable

import pytest
from fake_machine import FakeMachine

from sparse_detr.benchmarking.blocks import RotatedCall, cpu_block
from sparse_detr.benchmarking.timing import Timer, TimingPlan, count_page_faults

PLAN = TimingPlan(rounds=3, block_seconds=1.0, warmup_calls=2, patience_seconds=30.0)


def timer_on(machine: FakeMachine, plan: TimingPlan = PLAN) -> Timer:
    def run_block(call: Callable[[], object], calls: int) -> float:
        return cpu_block(call, calls, machine.clock)

    return Timer(plan, machine.watch(), run_block, machine.clock, machine.sleep)


def test_candidates_take_turns_block_by_block() -> None:
    machine, order = FakeMachine(), []

    def candidate(name: str) -> Callable[[], None]:
        def call() -> None:
            order.append(name)
            machine.work(1.0)

        return call

    timer_on(machine).compare({"a": candidate("a"), "b": candidate("b")})

    assert order[-6:] == ["a", "b", "a", "b", "a", "b"]


def test_the_time_of_a_call_and_the_calls_of_a_block() -> None:
    machine = FakeMachine()

    times = timer_on(machine).compare({"a": lambda: machine.work(0.25)}).by_name["a"]

    assert times.seconds == [pytest.approx(0.25)] * 3
    assert times.calls_per_block == 4
    assert times.milliseconds.median == pytest.approx(250)


def test_the_speedup_is_how_many_times_faster() -> None:
    machine = FakeMachine()
    compared = timer_on(machine).compare(
        {"fast": lambda: machine.work(0.5), "slow": lambda: machine.work(2.0)}
    )

    assert compared.speedup("fast", "slow").median == pytest.approx(4)


def test_a_disturbed_block_is_measured_again() -> None:
    machine, calls = FakeMachine(), []

    def call() -> None:
        calls.append(None)
        disturbed = len(calls) == 4  # the second block, after two calls of warm-up
        machine.others = 1.0 if disturbed else 0.0
        machine.work(3.0 if disturbed else 1.0)

    compared = timer_on(machine).compare({"a": call})

    assert compared.by_name["a"].seconds == [pytest.approx(1.0)] * 3
    assert (compared.rejected, compared.disturbed) == (1, 0)
    assert machine.slept


def test_where_others_never_stop_blocks_are_taken_and_counted() -> None:
    machine = FakeMachine()
    machine.others = 1.0

    compared = timer_on(machine).compare({"a": lambda: machine.work(1.0)})

    assert len(compared.by_name["a"].seconds) == 3
    assert compared.disturbed == 3
    assert machine.now < 2 * PLAN.patience_seconds


def test_the_page_faults_of_a_call_are_counted() -> None:
    machine, faults = FakeMachine(), [0]

    def call() -> None:
        machine.work(0.25)
        faults[0] += 300

    timer = timer_on(machine)
    timer.page_faults = lambda: faults[0]

    assert timer.compare({"a": call}).by_name["a"].page_faults == [300] * 3


def test_fresh_memory_costs_page_faults() -> None:
    size = 64 * 2**20
    with mmap.mmap(-1, size) as memory:
        before = count_page_faults()
        for page in range(0, size, 4096):
            memory[page] = 1

        # Whatever the size of a page, large ones included.
        assert count_page_faults() - before >= size // 2**22


def test_a_slow_candidate_warms_up_once() -> None:
    machine, calls = FakeMachine(), []

    def call() -> None:
        calls.append(None)
        machine.work(5.0)

    timer_on(machine).compare({"a": call})

    assert len(calls) == 1 + PLAN.rounds


def test_a_hiccup_inside_a_block_does_not_count() -> None:
    machine = FakeMachine()
    durations = iter([1.0, 1.0, 50.0, 1.0, 1.0])

    assert cpu_block(lambda: machine.work(next(durations)), 5, machine.clock) == pytest.approx(1)


def test_rotated_inputs_come_round_again() -> None:
    called: list[int] = []
    call = RotatedCall(*(lambda i=i: called.append(i) for i in range(3)))
    for _ in range(5):
        call()

    assert called == [0, 1, 2, 0, 1]


def test_rotating_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one call"):
        RotatedCall()
