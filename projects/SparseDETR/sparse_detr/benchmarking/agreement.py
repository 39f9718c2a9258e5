"""How far the predictions of two ways to compute the same detector are apart."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """Differences of the final predictions.

    Attributes:
        logits: Largest difference of a logit, query by query.
        boxes: Largest difference of a box coordinate.
        largest_logit: Largest absolute logit, for the scale.
        matched: Share of the queries that have a counterpart within the tolerance at any place:
            below 1 where a token became a query in one way and not in the other.
        tolerance: Of a logit and of a coordinate, times the largest logit where that is above 1.
    """

    logits: float
    boxes: float
    largest_logit: float
    matched: float
    tolerance: float = 1e-5

    @property
    def holds(self) -> bool:
        """Whether all predictions agree within the tolerance, in the same order."""
        scale = max(1.0, self.largest_logit)
        return self.logits <= self.tolerance * scale and self.boxes <= self.tolerance * scale


def agreement(
    one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], tolerance: float = 1e-5
) -> Agreement:
    """Gives how far two predictions of the same images are apart.

    Args:
        one: Logits (B, Q, classes) and boxes (B, Q, 4).
        other: The same of the other way.
        tolerance: See :class:`Agreement`.
    """
    logits, boxes = ((a.double() - b.double()).abs() for a, b in zip(one, other, strict=True))
    largest = float(one[0].abs().max())
    limit = tolerance * max(1.0, largest)
    matched, total = 0, 0
    for image in range(len(one[0])):
        # (Q, Q): the largest difference of each pair.
        pairs = _largest_difference(one[0][image], other[0][image])
        pairs = pairs.maximum(_largest_difference(one[1][image], other[1][image]))
        matched += int((pairs.amin(1) <= limit).sum())
        total += len(pairs)
    return Agreement(
        float(logits.max()), float(boxes.max()), largest, matched / max(1, total), tolerance
    )


def _largest_difference(one: Tensor, other: Tensor) -> Tensor:
    """(Q, Q) largest difference of every row of one with every row of the other."""
    return (one[:, None].double() - other[None].double()).abs().amax(-1)
