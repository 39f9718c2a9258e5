"""Measurements of the operators as plain records, and the functions that fresh processes run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from .blocks import RotatedCall, captured, cuda_event_block, run_block_for
from .disturbance import DisturbanceWatch
from .operator_cases import OURS, WITHOUT_GRADIENT, OperatorCase, make_operator_case
from .operator_inputs import QUERY_SETS, SPATIAL_SHAPES, make_operator_inputs
from .operator_peers import installed_peers
from .peak_memory import peak_bytes
from .timing import Call, CandidateTimes, ComparedTimes, Timer, TimingPlan

FORWARD, WITH_BACKWARD = "forward", "forward + backward"
# Sets of inputs that calls on a GPU take in turn; values of 18 MB each outgrow its cache together.
_CUDA_INPUTS = 4
# Small levels to warm up with before peak memory is measured.
_SMALL_LEVELS = ((6, 8), (3, 4), (2, 2), (1, 1))

# Which operator is measured on which queries, and whether backward too.
MEASURED: tuple[tuple[str, str, tuple[bool, ...]], ...] = (
    ("ms_deform_attn", "all", (False, True)),
    ("ms_deform_attn", "tenth", (False, True)),
    ("ms_deform_attn", "tenth-random", (False, True)),
    ("ms_deform_attn", "tenth-raster", (False,)),
    ("ms_deform_attn", "300", (False, True)),
    ("ms_deform_attn_fused", "all", (False,)),
    ("ms_deform_attn_fused", "tenth", (False, True)),
    ("ms_deform_attn_fused", "300", (False,)),
    ("sample_then_project", "300", (False, True)),
    ("sample_then_project", "tenth", (False, True)),
    ("deform_attn_sampling", "300", (False,)),
    ("decoder_attention_map", "300", (False,)),
)


def timer_for(device: torch.device, plan: TimingPlan) -> Timer:
    """Gives a timer for eager calls on a device, with the threads that torch is set to."""
    threads = 1 if device.type == "cuda" else torch.get_num_threads()
    return Timer(plan, DisturbanceWatch.of_this_machine(threads), run_block_for(device))


def measure_operator(
    operator: str,
    queries: str,
    backward: bool,
    device: str = "cpu",
    dtype: str = "float32",
    threads: int | None = None,
    plan: dict[str, Any] | None = None,
    baseline_only: bool = False,
) -> dict[str, Any]:
    """Gives the times of one operator on one set of queries in this process, ready for JSON.

    :func:`pool_processes` makes a whole record of it.

    Args:
        operator: Name in ``OPERATORS``.
        queries: Name in ``QUERY_SETS``.
        backward: Also compute the gradients.
        device: Device.
        dtype: Type of the values, such as "bfloat16".
        threads: CPU threads; None leaves torch's setting.
        plan: Fields of :class:`TimingPlan`.
        baseline_only: Leave out all ways but ours and the baseline.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    place, kind = torch.device(device), getattr(torch, dtype)
    peers, _ = installed_peers(place.type)
    # A GPU's cache would keep one set of inputs from call to call.
    cases = [
        make_operator_case(
            operator,
            make_operator_inputs(QUERY_SETS[queries], place, kind, seed=seed),
            backward,
            peers,
        )
        for seed in range(_CUDA_INPUTS if place.type == "cuda" else 1)
    ]
    wanted = (OURS, cases[0].baseline) if baseline_only else tuple(cases[0].candidates)
    calls = {name: RotatedCall(*(case.candidates[name] for case in cases)) for name in wanted}
    timing_plan = TimingPlan(**(plan or {}))
    times = timer_for(place, timing_plan).compare(dict(calls))
    record = _record(cases[0], queries, backward, times)
    record.update(device=device, dtype=dtype, threads=torch.get_num_threads())
    if place.type == "cuda":
        record["kernel"] = _times_by_name(_kernel_times(calls, timing_plan))
    return record


def pool_processes(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Gives one record of the rounds of several, of equal measurements in processes of their own.

    Where the memory of a process lies, and whether its C library keeps what was freed, changes
    times by tens of per cent and stays as it is while the process runs: one process tells of one
    such case.

    Args:
        records: At least one, as :func:`measure_operator` gives them.
    """
    pooled = {**records[0], "processes": len(records)}
    for times in ("candidates", "kernel"):
        if times in pooled:
            pooled[times] = _times_by_name(_pooled_times([record[times] for record in records]))
    ours = pooled["candidates"][OURS]["ms"]["median"] / 1000
    pooled["gathered_bytes_per_second"] = pooled["gathered_bytes"] / ours
    return pooled


def _pooled_times(parts: Sequence[dict[str, Any]]) -> ComparedTimes:
    pooled = {}
    for name in parts[0]:
        candidates = [part[name] for part in parts]
        pooled[name] = CandidateTimes(
            seconds=[second for one in candidates for second in one["seconds"]],
            calls_per_block=min(one["calls_per_block"] for one in candidates),
            rejected=sum(one["rejected_blocks"] for one in candidates),
            disturbed=sum(one["disturbed_blocks"] for one in candidates),
            page_faults=[faults for one in candidates for faults in one["page_faults"]],
        )
    return ComparedTimes(pooled)


def _kernel_times(calls: Mapping[str, RotatedCall], plan: TimingPlan) -> ComparedTimes:
    """Times of the kernels alone, all sets of inputs in one replayed graph."""

    def run_block(replay: Call, replays: int) -> float:
        return cuda_event_block(replay, replays) / _CUDA_INPUTS

    graphs = {name: captured(call, repetitions=_CUDA_INPUTS) for name, call in calls.items()}
    return Timer(plan, DisturbanceWatch.of_this_machine(1), run_block).compare(graphs)


def _record(
    case: OperatorCase, queries: str, backward: bool, times: ComparedTimes
) -> dict[str, Any]:
    return {
        "operator": case.operator,
        "queries": queries,
        "direction": WITH_BACKWARD if backward else FORWARD,
        "baseline": case.baseline,
        "candidates": _times_by_name(times),
        "gathered_bytes": case.gathered_bytes,
        "result_bytes": case.result_bytes,
    }


def _times_by_name(times: ComparedTimes) -> dict[str, Any]:
    return {
        name: {
            "ms": asdict(candidate.milliseconds),
            "seconds": candidate.seconds,
            "ours_is_faster": None if name == OURS else asdict(times.speedup(OURS, name)),
            "calls_per_block": candidate.calls_per_block,
            "rejected_blocks": candidate.rejected,
            "disturbed_blocks": candidate.disturbed,
            "page_faults": candidate.page_faults,
        }
        for name, candidate in times.by_name.items()
    }


def measure_peak(
    operator: str,
    queries: str,
    backward: bool,
    candidate: str = OURS,
    device: str = "cpu",
    dtype: str = "float32",
    threads: int | None = None,
) -> dict[str, int]:
    """Gives the peak memory of one call; to be run in a fresh process.

    The libraries are warmed up on small inputs first, so that their own start does not count.

    Args:
        operator: Name in ``OPERATORS``.
        queries: Name in ``QUERY_SETS``.
        backward: Also compute the gradients.
        candidate: Which way of the case.
        device: Device.
        dtype: Type of the values.
        threads: CPU threads; None leaves torch's setting.

    Returns:
        "peak_bytes" beyond the inputs, and "result_bytes" of outputs and gradients.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    place, kind = torch.device(device), getattr(torch, dtype)
    peers, _ = installed_peers(place.type)
    for levels in (_SMALL_LEVELS, SPATIAL_SHAPES):
        inputs = make_operator_inputs(QUERY_SETS[queries], place, kind, levels)
        case = make_operator_case(operator, inputs, backward, peers)
        if levels is _SMALL_LEVELS:
            case.candidates[candidate]()
    peak = peak_bytes(case.candidates[candidate], place)
    return {"peak_bytes": peak, "result_bytes": case.result_bytes}


def directions(operator: str, backward: tuple[bool, ...]) -> tuple[bool, ...]:
    """Gives which of forward and forward + backward an operator has."""
    return tuple(b for b in backward if not (b and operator in WITHOUT_GRADIENT))
