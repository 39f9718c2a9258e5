"""Ground truth of one image, as the criterion wants it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Objects of one image.

    Attributes:
        labels: (T,) int64 contiguous class ids.
        boxes_cxcywh: (T, 4) normalised to the image.
    """

    labels: Tensor
    boxes_cxcywh: Tensor
