"""Which device a process works on, and the seeds and random states of a run."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .errors import UserError

RandomState = dict[str, Any]


def resolve_device(name: str, local_rank: int = 0, key: str = "train.device") -> torch.device:
    """Gives the device of a process.

    Args:
        name: ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        local_rank: Number of the process on its machine; picks the GPU when the name has no number.
        key: What the name was given as, for messages.

    Returns:
        The device.

    Raises:
        UserError: The name is none of these, or there is no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"{key} is {name!r}, expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"{key} is {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index if device.index is not None else local_rank
    if index >= count:
        raise UserError(
            f"{key} is {name!r} (GPU {index}), but {count} GPUs are visible; use {key}=cpu"
        )
    return torch.device("cuda", index)


def seed_everything(seed: int, rank: int = 0, deterministic: bool = False) -> None:
    """Seeds Python, NumPy and torch with ``seed + rank``.

    Args:
        seed: The configured seed.
        rank: Number of the process, so that processes differ.
        deterministic: Asks torch for repeatable algorithms; operations without one raise an error.
    """
    value = (seed + rank) % 2**32
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = deterministic


def random_state() -> RandomState:
    """Gives the random states of this process as data that a checkpoint can hold."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: RandomState = {
        "python": random.getstate(),
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: RandomState) -> None:
    """Sets the random states of this process.

    Args:
        state: As :func:`random_state` gave it.
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Leaves the random states after the block as they were before it, errors included."""
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)
