"""The stop on numbers that are not finite: says where, when, which images; keeps the batch.

Role in the flow: the trainer asks here after the losses and after the gradients of each step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from .checkpoint_file import write_tensors
from .errors import TrainingDivergedError

BatchedInputs = list[dict[str, Any]]

_ADVICE = (
    "Usual causes: learning rate too high for the batch, float16 (try train.amp.dtype=bfloat16 or "
    "train.amp.enabled=false), broken boxes or images in the data."
)


def first_bad_gradient(model: nn.Module) -> str:
    """Gives the name of the first parameter whose gradient is not finite."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return name
    return "no single parameter (the norm itself overflowed)"


def bad_terms(losses: Mapping[str, float]) -> list[str]:
    """Gives the loss terms that are not finite, as ``name=value``."""
    return [f"{name}={value}" for name, value in losses.items() if not math.isfinite(value)]


def image_labels(batch: BatchedInputs) -> list[Any]:
    """Gives the image ids of a batch; file names, or positions, where there are none."""
    return [
        entry.get("image_id", entry.get("file_name", index)) for index, entry in enumerate(batch)
    ]


def stop_training(
    where: str,
    batch: BatchedInputs,
    iteration: int,
    optimizer: torch.optim.Optimizer,
    output_dir: str | Path,
    image_ids: Sequence[Any] | None = None,
    losses: Mapping[str, float] | None = None,
) -> TrainingDivergedError:
    """Writes the batch to ``nan_<iteration>.pt`` and gives the error to raise.

    The file holds plain data and tensors and opens with ``torch.load(..., weights_only=True)``.

    Args:
        where: The stage, loss terms or parameter concerned.
        batch: The inputs of the step.
        iteration: The optimiser step, from 0.
        optimizer: Gives the learning rates.
        output_dir: Folder of the run.
        image_ids: The images concerned; None for all of the batch.
        losses: The loss terms, where they were computed.

    Returns:
        The error with the complete message.
    """
    images = list(image_ids) if image_ids else image_labels(batch)
    rates = {
        str(group.get("name", index)): group["lr"]
        for index, group in enumerate(optimizer.param_groups)
    }
    rank = comm.get_rank()
    path = Path(output_dir) / (
        f"nan_{iteration}.pt" if rank == 0 else f"nan_{iteration}_rank{rank}.pt"
    )
    content = {
        "iteration": iteration,
        "where": where,
        "image_ids": _plain(images),
        "learning_rates": rates,
        "losses": dict(losses or {}),
        "batch": [_plain(entry) for entry in batch],
    }
    dump_path = str(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(content, path)
        kept = f"The batch is in {path}."
    except OSError as error:
        dump_path = ""
        kept = f"The batch could not be written ({error})."
    shown = ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())
    message = (
        f"Training stopped at iteration {iteration}: {where}. Images: {images}. Learning rates: "
        f"{shown}. "
        f"{kept} {_ADVICE}"
    )
    return TrainingDivergedError(message, dump_path)


def _plain(value: Any) -> Any:
    """Gives ``value`` as tensors, numbers, texts, lists and dicts."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if hasattr(value, "get_fields"):  # Detectron2's Instances
        return {name: _plain(field) for name, field in value.get_fields().items()}
    if isinstance(getattr(value, "tensor", None), Tensor):  # Detectron2's Boxes
        return _plain(value.tensor)
    return str(value)
