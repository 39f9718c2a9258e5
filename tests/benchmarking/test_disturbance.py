from __future__ import annotations

import pytest
from fake_machine import FakeMachine

from sparse_detr.benchmarking.disturbance import (
    DisturbanceWatch,
    parse_busy_seconds,
    read_cpu_use,
    watching_is_possible,
)


def test_busy_seconds_leave_out_idle_and_waiting_but_count_stolen_time() -> None:
    text = "cpu  100 20 30 4000 500 6 7 80 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n"

    assert parse_busy_seconds(text, 100) == pytest.approx((100 + 20 + 30 + 6 + 7 + 80) / 100)


def test_own_work_is_no_disturbance() -> None:
    machine = FakeMachine()
    watch = machine.watch()
    mark = watch.start()
    machine.work(1.0)

    assert not watch.disturbed(mark, 1.0)


def test_work_of_others_is_one() -> None:
    machine = FakeMachine()
    machine.others = 0.5
    watch = machine.watch()
    mark = watch.start()
    machine.work(1.0)

    assert watch.disturbed(mark, 1.0)


def test_little_work_of_others_is_let_pass() -> None:
    machine = FakeMachine()
    machine.others = 0.04
    watch = machine.watch()
    mark = watch.start()
    machine.work(1.0)

    assert not watch.disturbed(mark, 1.0)


def test_others_may_use_part_of_the_processors_that_are_left_free() -> None:
    machine = FakeMachine(cores=8)
    machine.others = 0.6
    watch = machine.watch(threads=4)
    mark = watch.start()
    machine.work(1.0)

    assert not watch.disturbed(mark, 1.0)


def test_where_the_system_does_not_tell_nothing_is_rejected_and_the_note_says_so() -> None:
    watch = DisturbanceWatch(None, cores=4, threads=4)

    assert not watch.disturbed(watch.start(), 1.0)
    assert "could not be rejected" in watch.note


def test_the_note_names_the_limit() -> None:
    assert "5 %" in FakeMachine().watch(threads=2).note


@pytest.mark.skipif(not watching_is_possible(), reason="this system has no /proc/stat")
def test_this_machine_has_been_busier_than_this_process() -> None:
    use = read_cpu_use()

    assert use.machine > 0
    assert use.own > 0
