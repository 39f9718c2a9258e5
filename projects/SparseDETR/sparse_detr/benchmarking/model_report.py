"""Measurements of whole detectors as plain records, and the functions that fresh processes run."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from detectron2.structures import Boxes, Instances

from .agreement import agreement
from .blocks import run_block_for
from .disturbance import DisturbanceWatch
from .model_ways import RELEASED, Setting, Way, build_ways, random_detector, random_images
from .peak_memory import peak_bytes
from .released_way import ReleasedDetector
from .stages import measure_stages
from .timing import Call, CandidateTimes, ComparedTimes, Timer, TimingPlan

# Small images to warm up with before peak memory is measured.
_SMALL_HEIGHT, _SMALL_WIDTH = 128, 160


def measure_ways(
    setting: Setting, names: list[str], plan: TimingPlan, with_stages: bool = True
) -> dict[str, Any]:
    """Gives the times of several ways to run one detector, interleaved, ready for JSON.

    Args:
        setting: What to run.
        names: The ways.
        plan: How much to measure.
        with_stages: Also measure the stages, one way after the other.
    """
    ways, missing = build_ways(names, setting)
    device = torch.device(setting.device)
    times = time_calls({way.name: way.call for way in ways}, plan, device)
    record: dict[str, Any] = {
        "setting": asdict(setting),
        "threads": torch.get_num_threads(),
        "missing": missing,
        "ways": {},
        "stages": {},
    }
    for way in ways:
        own = times.by_name[way.name]
        rates = [setting.batch / seconds for seconds in own.seconds]
        record["ways"][way.name] = {
            **times_record(own),
            "images_per_second": sorted(rates)[len(rates) // 2],
            "faster_than": {
                other.name: asdict(times.speedup(way.name, other.name))
                for other in ways
                if other is not way
            },
        }
        if with_stages and way.detector is not None:
            stages = measure_stages(way.detector, way.call, device, plan.rounds)
            record["stages"][way.name] = {stage: asdict(ms) for stage, ms in stages.items()}
    record["agreement"] = _agreements(ways)
    return record


def time_calls(calls: dict[str, Call], plan: TimingPlan, device: torch.device) -> ComparedTimes:
    """Gives the times of calls, interleaved.

    Args:
        calls: What to call, by name, in the order of a round.
        plan: How much to measure.
        device: Where they run.
    """
    threads = 1 if device.type == "cuda" else torch.get_num_threads()
    watch = DisturbanceWatch.of_this_machine(threads)
    return Timer(plan, watch, run_block_for(device)).compare(calls)


def times_record(times: CandidateTimes) -> dict[str, Any]:
    """Gives the times of one call, and what disturbed them, ready for JSON.

    Args:
        times: Of :func:`time_calls`.
    """
    return {
        "ms": asdict(times.milliseconds),
        "rejected_blocks": times.rejected,
        "disturbed_blocks": times.disturbed,
    }


def _agreements(ways: list[Way]) -> dict[str, Any]:
    """How far each of our ways is from the released one; empty without that."""
    released = next((way for way in ways if way.name == RELEASED), None)
    if released is None or released.predict is None:
        return {}
    wanted = released.predict()
    found = {}
    for way in ways:
        if way.predict is not None and way is not released:
            compared = agreement(wanted, way.predict())
            found[way.name] = {**asdict(compared), "holds": compared.holds}
    return found


def inference_peak(
    setting: dict[str, Any], name: str, threads: int | None = None
) -> dict[str, int]:
    """Gives the peak memory of one call beyond the model; to be run in a fresh process.

    Args:
        setting: Fields of :class:`Setting`.
        name: The way.
        threads: CPU threads; None leaves torch's setting.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    whole = Setting(**setting)
    small = replace(whole, height=_SMALL_HEIGHT, width=_SMALL_WIDTH)
    # The same weights, so that only one model is there when it counts.
    ways, missing = build_ways([name], whole)
    if not ways:
        raise RuntimeError(missing[0])
    if ways[0].detector is not None:
        with torch.no_grad():
            ways[0].detector(random_images(small))
    return {"peak_bytes": peak_bytes(ways[0].call, torch.device(whole.device))}


def training_step_peak(
    setting: dict[str, Any], released: bool, threads: int | None = None, objects: int = 12
) -> dict[str, int]:
    """Gives the peak memory of one training step; to be run in a fresh process.

    A step is: gradients set to None, forward pass, loss, backward pass, gradient norm clipped,
    AdamW. A first step on small images creates the state of AdamW and the threads' buffers, which
    therefore do not count; the gradients do.

    Args:
        setting: Fields of :class:`Setting`.
        released: The released way of computing instead of ours.
        threads: CPU threads; None leaves torch's setting.
        objects: Objects of each image.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    whole = Setting(**setting)
    model = random_detector(whole)
    detector = ReleasedDetector(model) if released else model
    detector.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)

    def step(inputs: list[dict[str, Any]]) -> None:
        optimizer.zero_grad(set_to_none=True)
        result = detector(inputs)
        loss = torch.stack(list(result.values())).sum() if isinstance(result, dict) else result
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.1)
        optimizer.step()

    step(
        _with_objects(
            random_images(replace(whole, height=_SMALL_HEIGHT, width=_SMALL_WIDTH)), objects
        )
    )
    optimizer.zero_grad(set_to_none=True)
    inputs = _with_objects(random_images(whole), objects)
    peak = peak_bytes(lambda: step(inputs), torch.device(whole.device))
    gradients = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    return {"peak_bytes": peak, "gradient_bytes": gradients}


def _with_objects(inputs: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The images with random objects."""
    generator = torch.Generator().manual_seed(2)
    for item in inputs:
        height, width = item["image"].shape[1:]
        corner = torch.rand(count, 2, generator=generator) * 0.6
        extent = 0.05 + torch.rand(count, 2, generator=generator) * 0.3
        scale = torch.tensor([width, height] * 2)
        item["instances"] = Instances(
            (height, width),
            gt_boxes=Boxes(torch.cat([corner, corner + extent], dim=1) * scale),
            gt_classes=torch.randint(0, 80, (count,), generator=generator),
        )
    return inputs
