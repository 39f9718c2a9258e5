"""An exponential moving average of the weights, and evaluation with it.

Role in the flow: a hook updates the average after each optimiser step; evaluation swaps it in and
back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class ModelEma:
    """The moving average ``e_t = d_t e_{t-1} + (1 - d_t) w_t`` of parameters and float buffers.

    ``e_0`` is the model as given; ``d_t`` is ``decay``, or ``decay * (1 - exp(-t / warmup))`` with
    a warm-up, so that early weights are forgotten. Integer buffers are copied.

    Args:
        model: The model, not wrapped for several processes; its current state starts the average.
        decay: In [0, 1).
        warmup: Steps of the warm-up, 0 for none.

    Raises:
        ValueError: ``decay`` or ``warmup`` is out of range.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9998, warmup: float = 0.0) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"train.ema.decay is {decay}, expected 0 <= decay < 1")
        if warmup < 0:
            raise ValueError(f"train.ema.warmup is {warmup}, expected 0 or more")
        self.decay = float(decay)
        self.warmup = float(warmup)
        self.updates = 0
        self.average: dict[str, Tensor] = {
            name: tensor.detach().clone() for name, tensor in model.state_dict().items()
        }

    def current_decay(self) -> float:
        """Gives ``d_t`` of the last update."""
        if self.warmup == 0:
            return self.decay
        return self.decay * (1.0 - math.exp(-self.updates / self.warmup))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the present weights.

        Args:
            model: The model that was given at construction.
        """
        self.updates += 1
        decay = self.current_decay()
        for name, tensor in model.state_dict().items():
            average = self.average[name]
            if average.is_floating_point():
                average.mul_(decay).add_(tensor.detach(), alpha=1.0 - decay)
            else:
                average.copy_(tensor)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Puts the average into ``model`` for the block; the weights come back bit for bit.

        Args:
            model: The model that was given at construction.
        """
        state = model.state_dict()
        before = {name: tensor.detach().clone() for name, tensor in state.items()}
        try:
            _copy_into(state, self.average)
            yield
        finally:
            _copy_into(model.state_dict(), before)

    def state_dict(self) -> dict[str, Any]:
        """Gives what a checkpoint stores."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a stored average.

        Args:
            state: As :meth:`state_dict` gave it.

        Raises:
            ValueError: The stored tensors do not fit the model.
        """
        stored: Mapping[str, Tensor] = state["average"]
        if stored.keys() != self.average.keys():
            different = sorted(stored.keys() ^ self.average.keys())
            raise ValueError(
                f"the stored average is of another model; entries that differ: {different[:5]}"
            )
        for name, tensor in stored.items():
            if tensor.shape != self.average[name].shape:
                raise ValueError(
                    f"the stored average of {name} has shape {tuple(tensor.shape)}, "
                    f"the model has {tuple(self.average[name].shape)}"
                )
        _copy_into(self.average, stored)
        self.updates = int(state["updates"])


@torch.no_grad()
def _copy_into(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
