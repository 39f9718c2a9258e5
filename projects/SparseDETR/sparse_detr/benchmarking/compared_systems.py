"""All systems against each other: latency in one interleaved run, memory of a training step.

Role in the flow: ``tools/make_comparison.py`` puts the records into ``docs/comparison.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from .disturbance import DisturbanceWatch
from .fresh_process import call_in_fresh_process
from .machine import describe_machine
from .model_report import time_calls, times_record, training_step_peak
from .model_ways import OPTIMISED, OURS, Setting, build_ways
from .peak_memory import LIVE_MEMORY
from .timing import Call, ComparedTimes, TimingPlan

COMPARED_WAYS = (OURS, OPTIMISED)
Tell = Callable[[str], None]


def measure_latency(
    systems: Mapping[str, Setting], reference: str, plan: TimingPlan, tell: Tell
) -> dict[str, Any]:
    """Gives the times of all systems, as built and optimised, in one interleaved run.

    All models are alive at once, twice: some 0.5 GB for each with a ResNet-50.

    Args:
        systems: What to run, by title; all on images of one size.
        reference: Title of the system that the others are held against, round by round.
        plan: How much to measure.
        tell: Is told what is being done.

    Raises:
        ValueError: There is no such reference.
    """
    if reference not in systems:
        raise ValueError(f"reference must be one of {', '.join(systems)}, got {reference!r}")
    calls: dict[str, Call] = {}
    for title, setting in systems.items():
        tell(f"building {title}")
        for way in build_ways(COMPARED_WAYS, setting)[0]:
            calls[_key(title, way.name)] = way.call
    tell(f"timing {len(calls)} detectors, {plan.rounds} rounds")
    first = systems[reference]
    device = torch.device(first.device)
    machine = describe_machine(device)
    times = time_calls(calls, plan, device)
    models = [
        {
            "title": title,
            "config": setting.config,
            "ways": {way: _way_record(times, title, way, reference) for way in COMPARED_WAYS},
        }
        for title, setting in systems.items()
    ]
    return {
        "machine": machine,
        "note": DisturbanceWatch.of_this_machine(torch.get_num_threads()).note,
        "images": _images(first),
        "rounds": plan.rounds,
        "block_seconds": plan.block_seconds,
        "reference": reference,
        "models": models,
    }


def _way_record(times: ComparedTimes, title: str, way: str, reference: str) -> dict[str, Any]:
    name = _key(title, way)
    faster = times.speedup(name, _key(reference, way))
    return {**times_record(times.by_name[name]), "faster_than_reference": asdict(faster)}


def measure_training_memory(
    systems: Mapping[str, Setting], threads: int, tell: Tell
) -> dict[str, Any]:
    """Gives the peak memory of a training step of each system, each in a process of its own.

    Args:
        systems: What to train, by title; all on equally many images of one size.
        threads: CPU threads.
        tell: Is told what is being measured.

    Raises:
        FreshProcessError: A step failed.
    """
    function = f"{training_step_peak.__module__}:{training_step_peak.__name__}"
    models = []
    for title, setting in systems.items():
        tell(f"training step of {title}")
        case = {"setting": asdict(setting), "released": False, "threads": threads}
        record = call_in_fresh_process(function, case, LIVE_MEMORY)
        models.append({"title": title, "config": setting.config, **record})
    first = next(iter(systems.values()))
    machine = {**describe_machine(torch.device(first.device)), "threads": threads}
    return {"machine": machine, "images": _images(first), "models": models}


def _key(title: str, way: str) -> str:
    return f"{title}, {way}"


def _images(setting: Setting) -> dict[str, int]:
    return {"height": setting.height, "width": setting.width, "batch": setting.batch}
