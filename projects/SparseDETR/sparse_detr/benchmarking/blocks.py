"""How one block of calls is timed on a processor and on a GPU.

Role in the flow: `timing` repeats blocks; a block repeats calls. On a GPU two times differ and both
matter: the *call* (kernels queued by Python one call after another, the host's work included) and
the *kernel* (the same kernels replayed from a CUDA graph, which leaves the host out).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from .timing import Call, RunBlock


def cpu_block(call: Call, calls: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Gives the median seconds of a call; a hiccup inside the block does not count."""
    seconds = []
    for _ in range(calls):
        start = clock()
        call()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def cuda_call_block(call: Call, calls: int) -> float:
    """Gives the mean seconds of a call, from the first launch to the end of the last kernel."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def cuda_event_block(call: Call, calls: int) -> float:
    """Gives the mean seconds of a call between device events, for use on replayed graphs."""
    make_event: Any = torch.cuda.Event  # has no types
    begin, end = (make_event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / calls


def run_block_for(device: torch.device) -> RunBlock:
    """Gives the way to time eager calls on a device."""
    return cuda_call_block if device.type == "cuda" else cpu_block


class RotatedCall:
    """One call that works on another set of inputs each time, so that no cache keeps them.

    Args:
        calls: The same work on different inputs.
    """

    def __init__(self, *calls: Call) -> None:
        if not calls:
            raise ValueError("calls must hold at least one call, got none")
        self.calls = calls
        self._next = 0

    def __call__(self) -> object:
        """Does the work on the next inputs."""
        call = self.calls[self._next]
        self._next = (self._next + 1) % len(self.calls)
        return call()


def captured(call: Call, repetitions: int = 1, warmup_calls: int = 3) -> Call:
    """Gives a call that replays the kernels of some calls from one CUDA graph.

    Args:
        call: The work; no kernel of it may wait for the host.
        repetitions: Calls in the graph, so that rotated inputs are all in it. A replay then takes
            as long as that many calls.
        warmup_calls: Calls on the side before the capture.
    """
    make_stream: Any = torch.cuda.Stream  # has no types
    side = make_stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(max(warmup_calls, repetitions)):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repetitions):
            call()
    return graph.replay
