"""One optimiser step, and the loop around it.

Role in the flow: on Detectron2's ``TrainerBase`` and its hooks. A step draws the micro-batches,
runs the model under autocast, checks that everything is finite, clips, steps and records.
Schedules, checkpoints, evaluation and logs are hooks.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.mapper import BadSampleError, ClassIdError
from .accumulation import MicroBatchWeights, micro_batch_weights
from .errors import user_errors
from .launching import unwrap
from .non_finite import BatchedInputs, bad_terms, first_bad_gradient, stop_training
from .precision import MixedPrecision

MAX_SKIPPED_IN_A_ROW = 50


@dataclass(frozen=True)
class StepOptions:
    """What a step does besides forward and backward.

    Attributes:
        max_norm: Total gradient norm to clip to; 0 for no clipping.
        accumulation: Micro-batches per optimiser step.
        output_dir: Folder for the dump of a batch that was not finite.
    """

    max_norm: float = 0.1
    accumulation: int = 1
    output_dir: str = "output"

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise ValueError(f"train.accumulation is {self.accumulation}, expected 1 or more")
        if self.max_norm < 0:
            raise ValueError(f"train.clip.max_norm is {self.max_norm}, expected 0 (off) or more")


class Trainer(TrainerBase):
    """Trains a meta-architecture that gives a dict of weighted losses.

    Attributes:
        skipped_steps: Optimiser steps left out because float16 gradients overflowed.

    Args:
        model: The model, wrapped for several processes if there are any.
        data_loader: Endless; gives this process's micro-batches.
        optimizer: The optimiser.
        precision: Autocast and loss scaling.
        options: Clipping and accumulation.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[BatchedInputs],
        optimizer: torch.optim.Optimizer,
        precision: MixedPrecision,
        options: StepOptions,
    ) -> None:
        super().__init__()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.precision = precision
        self.options = options
        self.skipped_steps = 0
        self._skipped_in_a_row = 0
        self._batches: Iterator[BatchedInputs] | None = None
        self._parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]

    def open_data(self) -> None:
        """Takes the loader's iterator; before random states are restored, as it may draw."""
        self._batches = iter(self.data_loader)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Runs iterations ``start_iter`` to ``max_iter - 1`` with all hooks.

        Unlike Detectron2's loop it leaves reporting an exception to the caller.
        """
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        self.model.train()
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                if self._batches is None:
                    self.open_data()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter = max_iter
            finally:
                self.after_train()

    def run_step(self) -> None:
        """Does one optimiser step and records losses, gradient norm and data time."""
        assert self.model.training, "a hook left the model in evaluation mode"
        start = time.perf_counter()
        micro_batches = self._draw()
        data_time = time.perf_counter() - start
        weights = micro_batch_weights(micro_batches, self.precision.device)
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        for index, (batch, weight) in enumerate(zip(micro_batches, weights, strict=True)):
            with self._gradient_sync(is_last=index == len(micro_batches) - 1):
                for name, value in self._forward_backward(batch, weight).items():
                    losses[name] = losses[name] + value if name in losses else value
        norm = self._clip()
        self._step(norm, micro_batches)
        self._record(losses, norm, data_time)

    def _draw(self) -> list[BatchedInputs]:
        assert self._batches is not None
        try:
            with user_errors("training data", BadSampleError, ClassIdError):
                return [next(self._batches) for _ in range(self.options.accumulation)]
        except StopIteration:
            raise RuntimeError(
                "the training loader ended; it must repeat the data without end"
            ) from None

    def _gradient_sync(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are averaged over the processes once per step, in the last micro-batch."""
        if isinstance(self.model, DistributedDataParallel) and not is_last:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _forward_backward(
        self, batch: BatchedInputs, weight: MicroBatchWeights
    ) -> dict[str, Tensor]:
        """Gives the detached, weighted losses of a micro-batch after their backward pass."""
        try:
            with self.precision.autocast():
                losses: Mapping[str, Tensor] = self.model(batch)
        except FloatingPointError as error:
            stage = getattr(error, "stage", None)
            where = f"not finite in {stage} ({error})" if stage else str(error)
            raise self._diverged(where, batch, getattr(error, "image_ids", None)) from error
        weighted = {
            name: value.float() if value.dtype.itemsize < 4 else value
            for name, value in losses.items()
        }
        weighted = {name: value * weight.of(name) for name, value in weighted.items()}
        total = torch.stack([value.reshape(()) for value in weighted.values()]).sum()
        if not bool(torch.isfinite(total.detach())):
            values = {name: float(value.detach()) for name, value in losses.items()}
            where = f"loss terms not finite: {', '.join(bad_terms(values)) or 'their sum'}"
            raise self._diverged(where, batch, losses=values)
        self.precision.backward(total)
        return {name: value.detach() for name, value in weighted.items()}

    def _clip(self) -> float:
        """Gives the total gradient norm before clipping."""
        self.precision.unscale(self.optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # Scaling by a norm that is not finite would spoil every gradient, and with it the search
        # for the first bad one.
        if self.options.max_norm > 0 and bool(torch.isfinite(norm)):
            nn.utils.clip_grads_with_norm_(self._parameters, self.options.max_norm, norm)
        return float(norm)

    def _step(self, norm: float, micro_batches: list[BatchedInputs]) -> None:
        """Steps the optimiser, unless the gradients overflowed."""
        if not math.isfinite(norm):
            batch = [entry for micro_batch in micro_batches for entry in micro_batch]
            parameter = first_bad_gradient(unwrap(self.model))
            self._skipped_in_a_row += 1
            if not self.precision.scales_loss or self._skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
                raise self._diverged(
                    f"gradient norm is {norm}, first in parameter {parameter}", batch
                )
        else:
            self._skipped_in_a_row = 0
        if not self.precision.step(self.optimizer):
            self.skipped_steps += 1

    def _diverged(
        self,
        where: str,
        batch: BatchedInputs,
        image_ids: Any = None,
        losses: Mapping[str, float] | None = None,
    ) -> Exception:
        return stop_training(
            where,
            batch,
            self.iter,
            self.optimizer,
            self.options.output_dir,
            image_ids=image_ids,
            losses=losses,
        )

    def _record(self, losses: dict[str, Tensor], norm: float, data_time: float) -> None:
        """Puts the means over the processes into the event storage, in one transfer."""
        names = sorted(losses)
        values = torch.stack([losses[name].reshape(()).double() for name in names])
        world_size = comm.get_world_size()
        if world_size > 1:
            dist.all_reduce(values)
            values = values / world_size
        means = dict(zip(names, values.tolist(), strict=True))
        self.storage.put_scalar("data_time", data_time)
        self.storage.put_scalar("total_loss", sum(means.values()))
        self.storage.put_scalars(**means)
        if math.isfinite(norm):
            self.storage.put_scalar("grad_norm", norm)
        if self.precision.scales_loss:
            self.storage.put_scalar("skipped_steps", self.skipped_steps, smoothing_hint=False)
            self.storage.put_scalar(
                "loss_scale", self.precision.scaler.get_scale(), smoothing_hint=False
            )

    def state_dict(self) -> dict[str, Any]:
        """Gives the trainer's part of a checkpoint: optimiser, scaler and counters."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.state_dict(),
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state["scaler"])
        self.skipped_steps = int(state["skipped_steps"])
