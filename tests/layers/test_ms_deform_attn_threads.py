"""The CPU kernels use the threads they are given, and give the same bits with any number."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deform_attn_inputs import Shapes
from interpreter import run_python
from operator_calls import OperatorCall
from operator_strategies import (
    VARIANTS,
    assert_close,
    make_variant,
    needs_native,
    output_of,
    results_of,
    threads,
)

from sparse_detr.layers.backend import extension_status

pytestmark = needs_native

SHAPES: Shapes = [(13, 17), (7, 9), (4, 5), (2, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("channels", [7, 32])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_result_does_not_depend_on_the_number_of_threads(
    variant: str, channels: int, dtype: torch.dtype
) -> None:
    # More queries than a chunk of the operators has, and a number that no number of threads shares.
    call = make_variant(
        variant,
        SHAPES,
        dtype=dtype,
        batch=2,
        queries=151,
        heads=3,
        channels=channels,
        width=33,
        padded=True,
    )
    with threads(1):
        expected = results_of("native", call)
    for number in (1, 2, 3, 5):
        with threads(number):
            for one, two in zip(results_of("native", call), expected, strict=True):
                assert torch.equal(one, two)


@pytest.mark.parametrize("variant", ["given", "points", "boxes"])
def test_the_order_in_which_queries_are_gone_through_changes_nothing(variant: str) -> None:
    # Values beyond the second cache: neighbours on the map follow each other, where there are
    # enough queries for that. One alone is too few.
    shapes = [(80, 80), (40, 40), (5, 5), (1, 1)]
    call = make_variant(
        variant,
        shapes,
        dtype=torch.float32,
        queries=37,
        heads=3,
        channels=32,
        points=4,
        padded=True,
    )
    for place, number in enumerate((float("nan"), float("inf"), -7.0, 1e30)):
        call.leaves[1][1, place].fill_(number)
    together = output_of("native", call)

    for number in (1, 3):
        with threads(number):
            assert torch.equal(output_of("native", call), together)
    # A position of 80 cells is known to within 4e-6 of a cell, and so is what lies there.
    assert_close([together], [output_of("torch", call.in_float64())], 2e-5)
    for query in range(37):
        one = replace(call, leaves=[call.leaves[0], *(x[:, [query]] for x in call.leaves[1:])])
        assert torch.equal(output_of("native", one), together[:, [query]])


# Prints, for each operator, the share of the CPU time that the two busiest threads had. Threads
# that wait must not count as busy: they sleep at once (OMP_WAIT_POLICY).
WATCH_THREADS = """
import torch
from pathlib import Path
from operator_strategies import VARIANTS, make_variant, results_of

def times():
    tasks = Path("/proc/self/task").iterdir()
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks}

torch.set_num_threads(2)
for variant in VARIANTS:
    call = make_variant(variant, [(40, 60), (20, 30)], dtype=torch.float32, batch=2, queries=600,
                        heads=8, channels=32, width=64)
    results_of("native", call)
    before = times()
    for _ in range(4):
        results_of("native", call)
    spent = sorted((now - before.get(name, 0) for name, now in times().items()), reverse=True)
    print(variant, len(spent), spent[1] / (spent[0] + spent[1]), sep=";")
"""


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the CPU time of single threads is not told"
)
@pytest.mark.skipif(not extension_status.with_openmp, reason="built without OpenMP")
def test_two_threads_share_the_work() -> None:
    result = run_python(WATCH_THREADS, OMP_WAIT_POLICY="passive", OMP_NUM_THREADS="2")
    assert result.returncode == 0, result.stderr
    lines = [line.split(";") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == list(VARIANTS)
    for variant, _, share in lines:
        # Half of it, less what the main thread does alone.
        assert float(share) > 0.25, f"{variant}: the second thread had {share} of the work"


def idle_processors(seconds: float) -> float:
    """Gives how many processors did nothing during so many seconds."""

    def idle() -> int:
        return int(Path("/proc/stat").read_text().split()[4])

    before = idle()
    time.sleep(seconds)
    return (idle() - before) / os.sysconf("SC_CLK_TCK") / seconds


def granted_processors() -> float:
    """Gives how many processors this process may use at the same time."""
    allowed: float = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, period = quota.read_text().split()
        if limit != "max":
            allowed = min(allowed, int(limit) / int(period))
    return allowed


def fastest(call: OperatorCall, number: int, calls: int) -> float:
    """Gives the shortest of several forward passes, in seconds."""
    durations = []
    with threads(number), torch.no_grad():
        for _ in range(calls):
            start = time.perf_counter()
            call.output(*call.leaves)
            durations.append(time.perf_counter() - start)
    return min(durations)


def test_two_threads_are_faster_than_one() -> None:
    if not Path("/proc/stat").exists() or granted_processors() < 2:
        pytest.skip("needs two processors, and to know whether they are idle")
    call = make_variant(
        "points", [(60, 80)], dtype=torch.float32, batch=1, queries=3000, heads=8, channels=32
    )
    call = replace(call, leaves=[leaf.contiguous() for leaf in call.leaves])
    ratios = []
    for _ in range(6):
        if idle_processors(0.1) < 1.9:
            continue
        one, two = fastest(call, 1, 10), fastest(call, 2, 10)
        if two < 0.8 * one:
            return
        if idle_processors(0.1) >= 1.9:
            ratios.append(two / one)
    if len(ratios) < 3:
        pytest.skip("fewer than two processors are idle: nothing to measure")
    pytest.fail(f"two threads took {ratios} of the time of one, on idle processors")
