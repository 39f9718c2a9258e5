"""Saves the memory of a training step as the rows that make it, not as a copy of all tokens.

A sparse encoder changes few rows in each layer, but the backward pass of a layer reads the memory
as that layer saw it. Instead of one full memory per layer, the first one and the rows of each are
kept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def rebuilt_when_needed(
    memory: Tensor, rebuild: Callable[[], Tensor] | None
) -> AbstractContextManager[Any]:
    """Makes autograd save a way to build the memory in place of the memory.

    Args:
        memory: (B, N, C), contiguous: what operations inside the context may save.
        rebuild: Gives the same values again; None saves the memory as usual.

    Returns:
        A context for those operations.
    """
    # A tracer plans its own memory.
    if rebuild is None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return nullcontext()
    # Not the tensor itself: the hooks live as long as the graph.
    address, numel = memory.data_ptr(), memory.numel()

    def pack(saved: Tensor) -> Tensor | torch.Size:
        same = saved.data_ptr() == address and saved.numel() == numel and saved.is_contiguous()
        return saved.shape if same else saved

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            return rebuild().view(kept)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
