"""How long each stage of a detector takes.

Role in the flow: a stage is a module or a method of the detector; its calls are clocked while the
whole detector runs, so what lies between the stages shows as the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ..meta_arch import TransformerDetector
from .released_way import ReleasedDetector
from .spread import Spread
from .timing import Call

REST, TOTAL = "rest", "total"
# In the order of the flow.
STAGES = (
    "preprocess",
    "backbone",
    "projection",
    "positions",
    "scoring",
    "encoder",
    "query selection",
    "decoder",
    "postprocess",
    REST,
    TOTAL,
)


class StageClock:
    """Adds up the seconds of each stage.

    Args:
        device: A GPU is waited for at the borders of a stage.
        clock: Seconds.
    """

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.device = device
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._starts: list[float] = []

    def enter(self) -> None:
        """Starts a stage; stages do not overlap."""
        self._starts.append(self._now())

    def leave(self, stage: str) -> None:
        """Ends it."""
        elapsed = self._now() - self._starts.pop()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + elapsed

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()

    @contextmanager
    def on_module(self, module: nn.Module, stage: str) -> Iterator[None]:
        """Clocks the calls of a module."""
        hooks = [
            module.register_forward_pre_hook(lambda *_: self.enter()),
            module.register_forward_hook(lambda *_: self.leave(stage)),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def on_attribute(self, owner: Any, name: str, stage: str) -> Iterator[None]:
        """Clocks the calls of a method, or of an object that is called."""
        original = getattr(owner, name)
        was_own = name in vars(owner)

        def clocked(*args: Any, **kwargs: Any) -> Any:
            self.enter()
            try:
                return original(*args, **kwargs)
            finally:
                self.leave(stage)

        setattr(owner, name, clocked)
        try:
            yield
        finally:
            if was_own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)


def _stages_of(detector: nn.Module) -> list[tuple[Any, str, str]]:
    """Owner, attribute and name of each stage."""
    if isinstance(detector, ReleasedDetector):
        model = detector.model
        return [
            (model, "preprocess", "preprocess"),
            (detector, "backbone", "backbone"),
            (model, "feature_projection", "projection"),
            (detector, "_select", "scoring"),
            (detector, "_encode", "encoder"),
            (detector, "_first_stage", "query selection"),
            (detector, "_decode", "decoder"),
        ]
    return [
        (detector, "preprocess", "preprocess"),
        (detector, "backbone", "backbone"),
        (detector, "feature_projection", "projection"),
        (detector, "position_embedding", "positions"),
        (detector, "_select_tokens", "scoring"),
        (detector, "encoder", "encoder"),
        (detector, "query_selection", "query selection"),
        (detector, "decoder", "decoder"),
        (detector, "postprocess", "postprocess"),
    ]


def measure_stages(
    detector: nn.Module, call: Call, device: torch.device, rounds: int = 7
) -> dict[str, Spread]:
    """Gives the milliseconds of each stage, of what lies between them, and of the whole.

    Args:
        detector: An ordinary, an optimised or a released detector.
        call: Runs it.
        device: Where it runs.
        rounds: Calls that count; one more comes first.
    """
    assert isinstance(detector, (TransformerDetector, ReleasedDetector))
    collected: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        clock = StageClock(device)
        with ExitStack() as stack:
            for owner, name, stage in _stages_of(detector):
                target = getattr(owner, name)
                manager = (
                    clock.on_module(target, stage)
                    if isinstance(target, nn.Module)
                    else clock.on_attribute(owner, name, stage)
                )
                stack.enter_context(manager)
            clock.enter()
            call()
            clock.leave(TOTAL)
        seconds = dict(clock.seconds)
        total = seconds.pop(TOTAL)
        seconds[REST], seconds[TOTAL] = total - sum(seconds.values()), total
        if number > 0:
            for stage, value in seconds.items():
                collected.setdefault(stage, []).append(1000 * value)
    return {stage: Spread.of(values) for stage, values in collected.items()}
