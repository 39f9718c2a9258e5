"""The check that predictions are finite before anything is matched to them.

Role in the flow: first step of the criterion. A NaN in a head otherwise surfaces as a message about
boxes or about the cost matrix of the assignment, far from its cause.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def check_finite(stage: str, what: str, values: Tensor, image_ids: Sequence[object]) -> None:
    """Raises if any value is NaN or infinite.

    Args:
        stage: The stage that gave the values, in words.
        what: What the values are, plural, for the message.
        values: (B, ...), first dimension over the images.
        image_ids: B ids.

    Raises:
        NonFinitePredictionError: Names the stage and the ids of the images concerned.
    """
    finite = torch.isfinite(values.detach()).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = [i for i, ok in zip(image_ids, finite.tolist(), strict=True) if not ok]
        raise NonFinitePredictionError(stage, what, bad)
