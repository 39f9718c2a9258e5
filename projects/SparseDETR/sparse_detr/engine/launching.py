"""Starts the processes of a run: GPUs through Detectron2, CPU through gloo; wraps the model.

Role in the flow: :mod:`sparse_detr.engine.program` calls :func:`launch`; each process then runs
the same function. Detectron2 v0.6 refuses several processes without a GPU, hence the CPU part here.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, start_processes
from torch.nn.parallel import DistributedDataParallel

from .errors import UserError

TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class ProcessPlan:
    """How many processes run, and where.

    Attributes:
        per_machine: Processes on each machine.
        machines: Number of machines.
        machine_rank: Number of this machine.
        dist_url: Where the processes meet; ``"auto"`` for a free local port.
        on_gpu: Whether each process has a GPU.
    """

    per_machine: int = 1
    machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    on_gpu: bool = False

    @property
    def world_size(self) -> int:
        """Number of processes over all machines."""
        return self.per_machine * self.machines


def launch(work: Callable[..., int], plan: ProcessPlan, args: tuple[Any, ...]) -> int:
    """Runs ``work(*args)`` in every process of ``plan``.

    Args:
        work: A function at module level; what it returns is the exit code of its process.
        plan: Where to run.
        args: Its arguments; they are pickled when there are several processes.

    Returns:
        The exit code of ``work`` for a single process; for several, 0, or the code of the first
        that failed.

    Raises:
        UserError: More GPUs were asked for than there are.
    """
    if plan.world_size == 1:
        return work(*args)
    if plan.on_gpu and plan.per_machine > torch.cuda.device_count():
        raise UserError(
            f"--num-gpus is {plan.per_machine}, but {torch.cuda.device_count()} GPUs are visible"
        )
    try:
        if plan.on_gpu:
            detectron2_launch(
                _run_and_exit,
                plan.per_machine,
                num_machines=plan.machines,
                machine_rank=plan.machine_rank,
                dist_url=plan.dist_url,
                args=(work, args),
            )
        else:
            url = f"tcp://127.0.0.1:{_free_port()}" if plan.dist_url == "auto" else plan.dist_url
            start_processes(  # type: ignore[no-untyped-call]
                _cpu_process,
                args=(plan, url, work, args),
                nprocs=plan.per_machine,
                start_method="spawn",
            )
    except ProcessExitedException as error:
        return int(error.exit_code)
    return 0


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _run_and_exit(work: Callable[..., int], args: tuple[Any, ...]) -> None:
    """Ends a started process with the code of its work; success returns, as the parent expects."""
    code = work(*args)
    if dist.is_initialized() and code == 0:
        # Together: nobody leaves while another still talks.
        comm.synchronize()
        if dist.get_backend() == "gloo":
            # Its threads now and then abort a process that takes itself down, all work done.
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        dist.destroy_process_group()
    if code != 0:
        raise SystemExit(code)


def _cpu_process(
    local_rank: int, plan: ProcessPlan, url: str, work: Callable[..., int], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // plan.per_machine))
    dist.init_process_group(
        backend="gloo",
        init_method=url,
        world_size=plan.world_size,
        rank=plan.machine_rank * plan.per_machine + local_rank,
        timeout=TIMEOUT,
    )
    _create_local_groups(plan)
    comm.synchronize()
    _run_and_exit(work, args)


def _create_local_groups(plan: ProcessPlan) -> None:
    """Tells Detectron2 which ranks share a machine; v0.6 has only this attribute for it."""
    for machine in range(plan.machines):
        first = machine * plan.per_machine
        group = dist.new_group(list(range(first, first + plan.per_machine)))
        if machine == plan.machine_rank:
            comm._LOCAL_PROCESS_GROUP = group


def wrap_for_processes(
    model: nn.Module,
    device: torch.device,
    broadcast_buffers: bool = False,
    find_unused_parameters: bool = False,
) -> nn.Module:
    """Gives ``model`` itself in a single process, else the model with averaged gradients.

    Args:
        model: The model, already on ``device``.
        device: Device of this process; device ids are passed for GPUs only.
        broadcast_buffers: Whether the first process's buffers are sent before each forward.
        find_unused_parameters: For models in which some parameter gets no gradient; costs time.

    Returns:
        The module to call in training.
    """
    if comm.get_world_size() == 1:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        broadcast_buffers=broadcast_buffers,
        find_unused_parameters=find_unused_parameters,
    )


def unwrap(model: nn.Module) -> nn.Module:
    """Gives the model inside a wrapper of :func:`wrap_for_processes`, or the model itself."""
    if isinstance(model, DistributedDataParallel):
        inner: nn.Module = model.module
        return inner
    return model
