"""Running a layer with or without keeping its activations."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, recompute: bool, *inputs: Any) -> Any:
    """Output of ``layer(*inputs)``.

    Args:
        layer: The layer.
        recompute: Keep only the inputs and compute the activations again in the backward pass.
        inputs: Positional inputs.
    """
    if recompute:
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
