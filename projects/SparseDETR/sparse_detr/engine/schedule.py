"""The schedule in epochs, and the iterations that follow from data set length and batch.

Role in the flow: configs state epochs; the trainer asks for the number of iterations and for the
learning-rate multiplier of an iteration. The multiplier is a pure function of the iteration, so
resuming needs no state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EpochSchedule:
    """How long to train and how the learning rate moves, in epochs.

    Source: 50 epochs, x0.1 at epoch 40, no warm-up (released training settings).

    Attributes:
        epochs: Length of the training; may be fractional.
        kind: ``"step"`` (times ``gamma`` at each milestone) or ``"cosine"`` (down to
            ``final_factor``).
        milestones: Epochs at which the rate is multiplied by ``gamma``.
        gamma: Factor of each milestone.
        final_factor: Multiplier at the end of a cosine schedule.
        warmup_iterations: Optimiser steps of linear warm-up; 0 for none.
        warmup_factor: Multiplier at the first step of the warm-up.
    """

    epochs: float = 50
    kind: str = "step"
    milestones: list[float] = field(default_factory=lambda: [40])
    gamma: float = 0.1
    final_factor: float = 0.0
    warmup_iterations: int = 0
    warmup_factor: float = 0.001

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise ValueError(f"schedule.epochs is {self.epochs}, expected a number above 0")
        if self.kind not in ("step", "cosine"):
            raise ValueError(f"schedule.kind is {self.kind!r}, expected 'step' or 'cosine'")
        ordered = sorted(self.milestones)
        if list(self.milestones) != ordered or any(milestone <= 0 for milestone in ordered):
            raise ValueError(
                f"schedule.milestones is {self.milestones}, expected growing epochs above 0"
            )
        if self.warmup_iterations < 0:
            raise ValueError(
                f"schedule.warmup_iterations is {self.warmup_iterations}, expected 0 or more"
            )

    @property
    def unreached_milestones(self) -> list[float]:
        """Milestones of a step schedule at which the training is over already."""
        if self.kind != "step":
            return []
        return [milestone for milestone in self.milestones if milestone >= self.epochs]

    def milestone_warning(self) -> str:
        """Gives the warning about milestones that are never reached; empty without any."""
        unreached = self.unreached_milestones
        if not unreached:
            return ""
        # As the released schedule: 40 of 50 epochs.
        proposed: float = round(0.8 * self.epochs)
        if not 0 < proposed < self.epochs:
            proposed = 0.8 * self.epochs
        return (
            f"schedule.milestones: {unreached} are never reached, as schedule.epochs is "
            f"{self.epochs}, so the learning rate is not lowered there; set both, for example "
            f"schedule.milestones=[{proposed:g}], or schedule.milestones=[] for a constant rate"
        )


@dataclass(frozen=True)
class IterationSchedule:
    """An :class:`EpochSchedule` for one data set and batch.

    Attributes:
        source: The schedule in epochs.
        iterations_per_epoch: Optimiser steps per epoch.
        total_iterations: Steps of the whole schedule.
        max_iter: Steps of this run: ``total_iterations``, or fewer or more when a short run was
            asked for.
    """

    source: EpochSchedule
    iterations_per_epoch: int
    total_iterations: int
    max_iter: int

    def iterations(self, epochs: float) -> int:
        """Gives the optimiser steps in ``epochs`` epochs, rounded; at least 1 above 0."""
        if epochs <= 0:
            return 0
        return max(1, round(epochs * self.iterations_per_epoch))

    def multiplier(self, iteration: int) -> float:
        """Gives the factor on the learning rates at optimiser step ``iteration`` (from 0)."""
        source = self.source
        warmup = 1.0
        if iteration < source.warmup_iterations:
            progress = iteration / source.warmup_iterations
            warmup = source.warmup_factor + (1.0 - source.warmup_factor) * progress
        if source.kind == "cosine":
            progress = min(iteration / self.total_iterations, 1.0)
            decay = 0.5 * (1.0 + math.cos(math.pi * progress))
            return warmup * (source.final_factor + (1.0 - source.final_factor) * decay)
        passed = sum(iteration >= self.iterations(milestone) for milestone in source.milestones)
        return float(warmup * source.gamma**passed)

    def describe(self, dataset_length: int, global_batch: int) -> str:
        """Gives one line for the log."""
        source = self.source
        steps = [self.iterations(milestone) for milestone in source.milestones]
        shape = f"x{source.gamma} at iterations {steps}" if source.kind == "step" else "cosine"
        text = (
            f"Schedule: {dataset_length} images / batch {global_batch} = "
            f"{self.iterations_per_epoch} iterations "
            f"per epoch; {source.epochs} epochs = {self.total_iterations} iterations; learning "
            f"rate {shape}"
        )
        if self.max_iter != self.total_iterations:
            text += f"; this run stops at iteration {self.max_iter} (train.max_iter)"
        return text


def plan_iterations(
    schedule: EpochSchedule, dataset_length: int, global_batch: int, max_iter: int | None = None
) -> IterationSchedule:
    """Gives the iterations that ``schedule`` means for one data set and batch.

    An epoch is ``ceil(dataset_length / global_batch)`` optimiser steps: 118,287 images at batch 16
    make 7,393.

    Args:
        schedule: The schedule in epochs.
        dataset_length: Images of the training set.
        global_batch: Images per optimiser step, over all processes and accumulated micro-batches.
        max_iter: Stops the run earlier (or later) without moving the milestones; None for the
            whole schedule.

    Returns:
        The schedule in iterations.

    Raises:
        ValueError: A number is below 1.
    """
    for name, value in (("dataset_length", dataset_length), ("global_batch", global_batch)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected 1 or more")
    if max_iter is not None and max_iter < 1:
        raise ValueError(
            f"train.max_iter is {max_iter}, expected 1 or more, or null for the whole schedule"
        )
    per_epoch = math.ceil(dataset_length / global_batch)
    total = max(1, math.ceil(schedule.epochs * per_epoch))
    return IterationSchedule(
        schedule, per_epoch, total, total if max_iter is None else int(max_iter)
    )
