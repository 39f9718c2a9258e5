from __future__ import annotations

import pytest
import torch
from fake_machine import FakeMachine
from torch import nn

from builders import batch, small_detector
from sparse_detr.benchmarking.released_way import ReleasedDetector
from sparse_detr.benchmarking.stages import STAGES, StageClock, measure_stages

CPU = torch.device("cpu")


class Worker(nn.Module):
    def __init__(self, machine: FakeMachine, seconds: float) -> None:
        super().__init__()
        self.machine, self.seconds = machine, seconds

    def forward(self) -> None:
        self.machine.work(self.seconds)


def test_calls_of_a_module_add_up() -> None:
    machine = FakeMachine()
    module, clock = Worker(machine, 2.0), StageClock(CPU, machine.clock)
    with clock.on_module(module, "encoder"):
        module()
        module()
    module()

    assert clock.seconds == {"encoder": pytest.approx(4.0)}


def test_a_method_is_clocked_and_given_back() -> None:
    machine = FakeMachine()
    worker, clock = Worker(machine, 3.0), StageClock(CPU, machine.clock)
    with clock.on_attribute(worker, "forward", "decoder"):
        worker.forward()

    assert clock.seconds == {"decoder": pytest.approx(3.0)}
    assert "forward" not in vars(worker)


@pytest.mark.parametrize("released", [False, True])
def test_stages_and_the_rest_make_up_the_whole(released: bool) -> None:
    model = small_detector()
    detector: nn.Module = ReleasedDetector(model) if released else model
    inputs = batch([(128, 160)])
    with torch.no_grad():
        stages = measure_stages(detector, lambda: detector(inputs), CPU, rounds=1)
    parts = [spread.median for stage, spread in stages.items() if stage != "total"]

    assert {"backbone", "encoder", "scoring", "decoder", "rest"} <= set(stages) <= set(STAGES)
    assert sum(parts) == pytest.approx(stages["total"].median)
    assert not model.backbone._forward_hooks
