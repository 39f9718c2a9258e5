"""What a detector costs as it predicts, found when it is first asked for and then remembered.

Role: read by the GFLOP budget and by the sweep over keeping ratios, for any detector: on any
device, in training or not, optimised or not.
"""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ..meta_arch import TransformerDetector
from ..meta_arch.detector_structure import structure_of, with_zero_weights
from .detector_cost import DetectorCost

logger = logging.getLogger(__name__)

_known: WeakKeyDictionary[nn.Module, tuple[torch.device, DetectorCost]] = WeakKeyDictionary()


def inference_cost(detector: TransformerDetector) -> DetectorCost:
    """Multiply-adds of a detector in the honest convention.

    Args:
        detector: The detector, which is neither run nor changed. An optimised one counts as the one
            that it was made from.

    Raises:
        ValueError: The detector cannot be counted; see :class:`DetectorCost`.
    """
    known = _known.get(detector)
    if known is not None and known[0] == detector.device:
        return known[1]
    logger.info("Counting the detector's GFLOPs, once")
    runnable = with_zero_weights(structure_of(detector), detector.device)
    with torch.autocast(detector.device.type, enabled=False):
        cost = DetectorCost(runnable)
    _known[detector] = detector.device, cost
    return cost
