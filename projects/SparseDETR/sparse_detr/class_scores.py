"""How classes are scored: one logit per class on its own, or a distribution with "no object".

Role in the flow: held by the matcher, read by matcher (cost of a pair) and criterion (loss). The
heads give the logits that it asks for, the postprocess reads them in the same way; a detector
whose parts disagree is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers.precision import at_least_float32
from .layers.process_mean import mean_over_processes


@dataclass(frozen=True)
class ClassTargets:
    """The class logits of one stage with what they should have been.

    Attributes:
        logits: (B, Q, num_classes), or (B, Q, num_classes + 1) with "no object" last; float32 or
            float64.
        positive: (image, row, label) of the matched rows, three (M,) int64 tensors.
        candidate_mask: (B, Q) bool, other rows count nothing; None if all count.
    """

    logits: Tensor
    positive: tuple[Tensor, Tensor, Tensor]
    candidate_mask: Tensor | None = None


class ClassScores(ABC):
    """What matcher and criterion ask of a way to score classes.

    Attributes:
        no_object: Whether there is a logit for "no object" behind those of the classes.
    """

    no_object: ClassVar[bool]

    @abstractmethod
    def comparable(self, logits: Tensor) -> Tensor:
        """(..., C) what :meth:`pair_cost` reads, from all logits (..., C or C + 1) of a row."""

    @abstractmethod
    def pair_cost(self, values: Tensor) -> Tensor:
        """(...) cost of matching a row to an object, from the value (...) of the object's class."""

    @abstractmethod
    def losses(self, stages: Sequence[ClassTargets], num_boxes: Tensor) -> Tensor:
        """The normalised loss of each stage.

        Args:
            stages: S stages.
            num_boxes: Scalar, mean number of objects per process; or (S,).

        Returns:
            (S,).
        """


@dataclass(frozen=True)
class SigmoidClasses(ClassScores):
    """Every class has a probability of its own; focal loss and cost.

    Attributes:
        alpha: Focal weight of positives.
        gamma: Focal exponent.

    Source: Lin et al., Focal Loss for Dense Object Detection, equation 5; Deformable DETR, released
        code, for the cost.
    """

    alpha: float = 0.25
    gamma: float = 2.0
    no_object: ClassVar[bool] = False

    def comparable(self, logits: Tensor) -> Tensor:
        """The logits themselves."""
        return logits

    def pair_cost(self, values: Tensor) -> Tensor:
        """Focal loss of a positive less that of a negative."""
        probability = values.sigmoid()
        eps = 1e-8
        positive = -self.alpha * (1 - probability) ** self.gamma * (probability + eps).log()
        negative = -(1 - self.alpha) * probability**self.gamma * (1 - probability + eps).log()
        return positive - negative

    def losses(self, stages: Sequence[ClassTargets], num_boxes: Tensor) -> Tensor:
        """Focal sums divided by the number of objects."""
        sums = [
            focal_sum(s.logits, s.positive, s.candidate_mask, self.alpha, self.gamma)
            for s in stages
        ]
        return torch.stack(sums) / num_boxes


@dataclass(frozen=True)
class SoftmaxClasses(ClassScores):
    """The classes and "no object" share one distribution; weighted cross-entropy.

    Attributes:
        no_object_weight: Weight of rows that match nothing, against 1 of the others.
        own_process_only: False divides by the weights of all processes, so that every row of a
            step counts alike. True is the released behaviour: each process divides by its own.

    Source: DETR, section 3.1; appendix A.4 for the weight.
    """

    no_object_weight: float = 0.1
    own_process_only: bool = False
    no_object: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.no_object_weight > 0:
            raise ValueError(f"no_object_weight must be above 0, got {self.no_object_weight}")

    def comparable(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes."""
        return class_probabilities(logits)

    def pair_cost(self, values: Tensor) -> Tensor:
        """The negative probability of the object's class."""
        return -values

    def losses(self, stages: Sequence[ClassTargets], num_boxes: Tensor) -> Tensor:
        """Weighted means over all rows; the number of objects plays no part."""
        sums, weights = zip(*(self._weighted_sum(stage) for stage in stages), strict=True)
        total = torch.stack(weights)
        if not self.own_process_only:
            total = mean_over_processes(total)
        # Without any candidate the sum is zero, and so is the loss.
        return torch.stack(sums) / total.clamp(min=1e-12)

    def _weighted_sum(self, stage: ClassTargets) -> tuple[Tensor, Tensor]:
        """Weighted cross-entropy summed over the rows, and the sum of their weights."""
        image, row, _ = stage.positive
        losses = -stage.logits.log_softmax(-1)
        background = losses[..., -1]
        mask = stage.candidate_mask
        if mask is not None:
            background = background.masked_fill(~mask, 0)
        matched, unmatched = losses[stage.positive], background[image, row]
        total = self.no_object_weight * background.sum()
        total = total + (matched - self.no_object_weight * unmatched).sum()
        count = background.numel() if mask is None else mask.sum()
        weight = self.no_object_weight * (count - len(row)) + len(row)
        return total, torch.as_tensor(weight, dtype=total.dtype, device=total.device)


def class_probabilities(logits: Tensor) -> Tensor:
    """(..., C) probabilities from logits (..., C + 1) with "no object" last."""
    return logits.to(at_least_float32(logits.dtype)).softmax(-1)[..., :-1]


def focal_sum(
    logits: Tensor,
    positive: tuple[Tensor, Tensor, Tensor],
    candidate_mask: Tensor | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Sigmoid focal loss summed over all logits.

    Almost all targets are zero, so the loss of a zero target is taken everywhere and corrected at
    the positives; a one-hot target is never made.

    Args:
        logits: (B, Q, num_classes).
        positive: (image, row, label) of the positives, three (M,) int64 tensors.
        candidate_mask: (B, Q) bool; other rows count nothing.
        alpha: Weight of positives.
        gamma: Exponent.

    Returns:
        Scalar.

    Source: Lin et al., Focal Loss for Dense Object Detection, equation 5.
    """
    negatives = (logits.sigmoid() ** gamma * F.softplus(logits)).sum(-1)
    if candidate_mask is not None:
        negatives = negatives.masked_fill(~candidate_mask, 0)
    hits = logits[positive]
    chance = hits.sigmoid()
    gain = alpha * (1 - chance) ** gamma * F.softplus(-hits)
    loss = (1 - alpha) * chance**gamma * F.softplus(hits)
    return (1 - alpha) * negatives.sum() + (gain - loss).sum()
