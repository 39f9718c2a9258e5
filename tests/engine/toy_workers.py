"""Functions that tests run in started processes; at module level, because they are looked up by
name there."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from detectron2.utils import comm

from sparse_detr.engine import program, session
from sparse_detr.engine.errors import UserError
from sparse_detr.engine.launching import unwrap, wrap_for_processes
from sparse_detr.engine.optimizer import build_adamw
from sparse_detr.engine.precision import MixedPrecision
from sparse_detr.engine.trainer import StepOptions, Trainer


def train_share(output: str, counts: tuple[int, ...], accumulation: int, steps: int) -> int:
    """Trains on this process's images (every world-size-th) and stores the first process's
    weights."""
    from test_trainer import entry, toy

    rank, world_size = comm.get_rank(), comm.get_world_size()
    images = [entry(index, boxes) for index, boxes in enumerate(counts)]
    size = len(images) // accumulation
    batches = [
        images[start : start + size][rank::world_size] for start in range(0, len(images), size)
    ]
    device = torch.device("cpu")
    model = toy()
    wrapped = wrap_for_processes(model, device)
    optimizer = build_adamw(model, global_batch=16, lr=1e-2)
    options = StepOptions(accumulation=accumulation, output_dir=str(Path(output).parent))
    trainer = Trainer(
        wrapped, batches * steps, optimizer, MixedPrecision(False, "bfloat16", device), options
    )
    trainer.train(0, steps)
    if rank == 0:
        parameters = {name: p.detach() for name, p in unwrap(wrapped).named_parameters()}
        loss = trainer.storage.history("total_loss").latest()
        torch.save({"parameters": parameters, "loss": loss}, output)
    return 0


def train_cases(cases: list[tuple[str, tuple[int, ...], int]], steps: int) -> int:
    """Runs :func:`train_share` for several cases, since starting processes is what takes long."""
    for output, counts, accumulation in cases:
        train_share(output, counts, accumulation, steps)
    return 0


def fail_in_second_process() -> int:
    """Runs a process of the program whose session meets an error in the second process alone."""

    def run_session(config: object, arguments: argparse.Namespace) -> None:
        if comm.get_rank() == 1:
            raise UserError("training data: a.jpg cannot be read")
        comm.synchronize()  # waits for the other one, as a gradient does

    session.run_session = run_session
    program.load_config = lambda *args: None
    program._SECONDS_FOR_FIRST_PROCESS = 0.3
    return program.run_process(argparse.Namespace(config_file="", overrides=[], traceback=False))
