"""Going on from a checkpoint of the same run, bit for bit.

Role in the flow: the session reads the checkpoint before anything is built that it would change,
then restores optimiser, averages, random states and the position in the data.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ..data.loader import SampleLoader, set_start_iteration
from .devices import restore_random_state
from .ema import ModelEma
from .errors import UserError, user_errors
from .event_logs import METRICS_NAME, refill_events
from .hooks import EvaluationHook
from .run_state import CheckpointEntry, RunCheckpoints
from .trainer import Trainer
from .weights import compare_weights, weights_of

logger = logging.getLogger(__name__)


class RecentEventsHook(HookBase):
    """Puts the recent scalars of the interrupted run back before the first step.

    Args:
        events: As the checkpoint holds them.
    """

    def __init__(self, events: Mapping[str, Any]) -> None:
        self._events = events

    def before_train(self) -> None:
        """Refills the storage."""
        refill_events(self.trainer.storage, self._events)


@dataclass(frozen=True)
class Resumption:
    """A checkpoint to go on from.

    Attributes:
        content: What it holds.
        entry: Its line in the index.
        source: Its path, for messages.
    """

    content: dict[str, Any]
    entry: CheckpointEntry
    source: str

    @property
    def iteration(self) -> int:
        """Optimiser steps done."""
        return int(self.content["iteration"])

    def events_hook(self) -> RecentEventsHook:
        """Gives the hook that refills the logs."""
        return RecentEventsHook(self.content.get("events", {}))

    def load_model(self, model: nn.Module) -> None:
        """Loads the weights, all of them.

        Raises:
            UserError: They are of another model.
        """
        weights = weights_of(self.content, self.source)
        report = compare_weights(model, weights, self.source)
        if report.missing or report.mismatched or report.unexpected:
            raise UserError(
                f"{report}\ncannot resume: the checkpoint is of another model than the config "
                "describes"
            )
        model.load_state_dict(weights)

    def restore(
        self, trainer: Trainer, evaluation: EvaluationHook, average: ModelEma | None
    ) -> int:
        """Restores everything but the weights.

        Args:
            trainer: Built as for a new run.
            evaluation: Its hook.
            average: The moving average, if the config has one.

        Returns:
            The iteration to start with.

        Raises:
            UserError: The checkpoint is of another set-up.
        """
        with user_errors(f"cannot resume from {self.source}", ValueError, KeyError):
            trainer.load_state_dict(self.content["trainer"])
            if "evaluation" in self.content:
                evaluation.load_state_dict(self.content["evaluation"])
            if average is not None and "ema" in self.content:
                average.load_state_dict(self.content["ema"])
        if average is not None and "ema" not in self.content:
            logger.warning(
                "%s has no moving average; it starts from the present weights", self.source
            )
        loader = cast(SampleLoader, trainer.data_loader)
        set_start_iteration(loader, self.iteration, trainer.options.accumulation)
        trainer.open_data()
        states = self.content.get("random_states", [])
        if len(states) == comm.get_world_size():
            restore_random_state(states[comm.get_rank()])
        else:
            logger.warning(
                "%s was saved by %d processes and is resumed by %d: the random numbers of the "
                "model will differ",
                self.source,
                len(states),
                comm.get_world_size(),
            )
        logger.info("Resumed from %s at iteration %d", self.source, self.iteration)
        return self.iteration


def read_resumption(checkpoints: RunCheckpoints) -> Resumption | None:
    """Gives the newest readable checkpoint of a run, or None where there is none.

    Args:
        checkpoints: The run's folder.

    Returns:
        The checkpoint; damaged newer ones were passed over with a warning.

    Raises:
        UserError: There are checkpoints, but none can be read.
    """
    found = checkpoints.latest_readable()
    if found is None:
        logger.warning(
            "--resume: %s holds no checkpoint, so the training starts anew", checkpoints.directory
        )
        return None
    content, entry = found
    return Resumption(content, entry, str(checkpoints.directory / entry.file))


def forget_earlier_run(checkpoints: RunCheckpoints) -> None:
    """Clears index and metrics of an earlier run in the folder, so that two runs never mix.

    Args:
        checkpoints: The folder. Checkpoint files stay until files of the same name replace them,
            but ``--resume`` passes them over, also where the new run dies before it saves.
    """
    newest = checkpoints.newest_file()
    if newest is not None:
        logger.warning(
            "%s is of an earlier run; the file stays, but --resume will not go on from it", newest
        )
    metrics = checkpoints.directory / METRICS_NAME
    if metrics.exists():
        logger.warning("%s is of an earlier run and is replaced", metrics)
        metrics.unlink()
    checkpoints.start_anew()
