"""Running a layer with or without keeping its activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint


def run_layer(layer: Callable[..., Any], recompute: bool, *inputs: Any, **options: Any) -> Any:
    """Output of ``layer(*inputs, **options)``.

    Args:
        layer: The layer.
        recompute: Keep only the inputs and compute the activations again in the backward pass.
        inputs: Positional inputs.
        options: Inputs by name.
    """
    if recompute:
        return checkpoint(layer, *inputs, use_reentrant=False, **options)
    return layer(*inputs, **options)
