"""Mixed precision: the autocast block around the model, and loss scaling for float16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

_DTYPES = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


class MixedPrecision:
    """Runs the model in reduced precision and scales the loss where the type needs it.

    bfloat16 works on CPU and GPU without scaling. float16 needs a GPU and a gradient scaler. The
    sum of the losses and the optimiser stay in float32.

    Args:
        enabled: Whether to use reduced precision at all.
        dtype: ``"bfloat16"`` or ``"float16"``.
        device: Where the model is.

    Raises:
        ValueError: Unknown type, or float16 on the CPU.
    """

    def __init__(self, enabled: bool, dtype: str, device: torch.device) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"train.amp.dtype is {dtype!r}, expected bfloat16 or float16")
        self.enabled = bool(enabled)
        self.dtype = _DTYPES[dtype]
        self.device = device
        uses_half = self.enabled and self.dtype is torch.float16
        if uses_half and device.type != "cuda":
            raise ValueError("train.amp.dtype=float16 needs a GPU; use bfloat16 on the CPU")
        self.scaler = GradScaler(device.type, enabled=uses_half)

    @property
    def scales_loss(self) -> bool:
        """Whether gradients that are not finite mean a skipped step rather than an error."""
        return bool(self.scaler.is_enabled())

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Gives the block in which the model must be called."""
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.enabled):
            yield

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of ``loss``, scaled if needed."""
        scaled: Tensor = self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the gradients by the scale, so that clipping sees true sizes."""
        if self.scales_loss:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Does the optimiser step.

        Returns:
            False when the step was skipped because a scaled gradient overflowed.
        """
        before = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        return not self.scales_loss or bool(self.scaler.get_scale() >= before)

    def state_dict(self) -> dict[str, Any]:
        """Gives what a checkpoint stores."""
        return dict(self.scaler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the scaler; a state stored without scaling is empty and changes nothing."""
        if state and self.scales_loss:
            self.scaler.load_state_dict(state)
