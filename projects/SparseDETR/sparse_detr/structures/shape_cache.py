"""Keeps constants that depend on nothing but shapes, so that equal shapes compute them once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@contextmanager
def constant_tensors() -> Iterator[None]:
    """Makes the tensors created inside usable everywhere, also in a later training step.

    A tensor made in inference mode could never take part in autograd.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is a real one: not of a tracer, and no stand-in for one."""
    return type(tensor) is Tensor and not torch.compiler.is_compiling()


class ShapeCache(Generic[T]):
    """The constants of the last few shapes.

    Threads may share it. A copy or a pickle of it starts empty. What it gives must never be
    modified, and is freed when other shapes push it out: who captures a CUDA graph keeps the
    tokens of the capture.

    Args:
        max_entries: Entries to keep; the one unused for longest goes first.
    """

    def __init__(self, max_entries: int = 8) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries must be at least 1, got {max_entries}")
        self.max_entries = max_entries
        self._entries: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The constants of a shape.

        Args:
            key: All that they depend on, as values of the host.
            make: Computes them; called where they are not at hand.
        """
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                return found
        with constant_tensors():
            made = make()
        with self._lock:
            self._entries[key] = made
            while len(self._entries) > self.max_entries:
                self._entries.popitem(last=False)
        return made

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.max_entries,)
