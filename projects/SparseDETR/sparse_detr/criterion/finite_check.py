"""The check that predictions are finite before anything is matched to them.

Role in the flow: first step of the criterion. A NaN in a head otherwise surfaces as a message about
boxes or about the cost matrix of the assignment, far from its cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class NonFinitePredictionError(FloatingPointError):
    """A stage of the detector gave values that are not finite.

    Attributes:
        stage: The stage in words, for example ``"decoder layer 3"``.
        image_ids: Ids of the images concerned, as the data set gives them.
    """

    def __init__(self, stage: str, what: str, image_ids: Sequence[object]) -> None:
        self.stage = stage
        self.image_ids = tuple(image_ids)
        super().__init__(
            f"{stage} gave {what} that are not finite for the images {list(self.image_ids)}; "
            "usual causes: too large a learning rate, fp16 overflow, or broken input images"
        )


@dataclass(frozen=True)
class CheckedValues:
    """Values that must be finite.

    Attributes:
        stage: The stage that gave them, in words.
        what: What they are, plural, for the message.
        values: (B, ...), first dimension over the images.
    """

    stage: str
    what: str
    values: Tensor


def check_all_finite(checked: Sequence[CheckedValues], image_ids: Sequence[object]) -> None:
    """Raises if any value is NaN or infinite; waits for the device once.

    Args:
        checked: In the order in which they are reported.
        image_ids: B ids.

    Raises:
        NonFinitePredictionError: Names the first stage concerned and the ids of the images there.
    """
    finite = torch.stack([_finite_images(entry.values.detach()) for entry in checked])
    for entry, images in zip(checked, finite.tolist(), strict=True):
        bad = [i for i, ok in zip(image_ids, images, strict=True) if not ok]
        if bad:
            raise NonFinitePredictionError(entry.stage, entry.what, bad)


def check_finite(stage: str, what: str, values: Tensor, image_ids: Sequence[object]) -> None:
    """The same for the values of one stage; see :class:`CheckedValues`."""
    check_all_finite([CheckedValues(stage, what, values)], image_ids)


def _finite_images(values: Tensor) -> Tensor:
    """(B,) bool, whether all values of an image are finite."""
    if not values.numel():
        return torch.ones(len(values), dtype=torch.bool, device=values.device)
    # Largest and smallest value show NaN and both infinities without a mask of all values.
    values = values.flatten(1)
    return values.amax(1).isfinite() & values.amin(1).isfinite()
