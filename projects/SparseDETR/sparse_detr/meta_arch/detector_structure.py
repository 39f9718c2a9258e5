"""What a detector is made of, without its weights: for counting and for telling detectors apart."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from .transformer_detector import TransformerDetector


def structure_of(detector: TransformerDetector) -> TransformerDetector:
    """A copy that has the shapes of all parameters and none of their values, in evaluation mode.

    Args:
        detector: The detector; of an optimised one, that which it was made from.
    """
    source: TransformerDetector = getattr(detector, "structure", detector)
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
        for parameter in source.parameters()
    }
    structure = copy.deepcopy(source, memo).eval()
    for module in structure.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return structure


def with_zero_weights(structure: TransformerDetector, device: torch.device) -> TransformerDetector:
    """A detector in float32 that computes what the structure does, on weights that are zero.

    Args:
        structure: Of :func:`structure_of`; it is left as it is.
        device: Where the detector is to run.
    """
    detector = structure_of(structure)
    for module in detector.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                zeros = torch.zeros(parameter.shape, device=device)
                module._parameters[name] = nn.Parameter(zeros, requires_grad=False)
    return detector.to(device).float()
