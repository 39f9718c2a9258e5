"""Between optimiser steps: learning rate, moving average, checkpoints, evaluation, logs.

Role in the flow: registered with the trainer in this order. A checkpoint is written before the
evaluation of the same iteration, so that a crash there costs no training; a resumed run makes up
for an evaluation that is due.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from .devices import random_state
from .ema import ModelEma
from .evaluation import Results, save_results
from .launching import unwrap
from .run_state import RunCheckpoints
from .schedule import IterationSchedule

logger = logging.getLogger(__name__)

HISTORY_LENGTH = 20


class LearningRateHook(HookBase):
    """Sets the learning rates before each step, from those the optimiser was built with.

    Args:
        optimizer: The optimiser, before a checkpoint is loaded into it.
        schedule: Gives the multiplier.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: IterationSchedule) -> None:
        self._optimizer = optimizer
        self._schedule = schedule
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]

    def before_step(self) -> None:
        """Sets the rates of this iteration."""
        factor = self._schedule.multiplier(self.trainer.iter)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def after_step(self) -> None:
        """Records the rate of the first (main) group as ``lr`` and of the others by name."""
        storage = self.trainer.storage
        for index, group in enumerate(self._optimizer.param_groups):
            name = "lr" if index == 0 else f"lr_{group.get('name', index)}"
            storage.put_scalar(name, group["lr"], smoothing_hint=False)


class EmaHook(HookBase):
    """Updates the moving average after each step.

    Args:
        average: The average.
    """

    def __init__(self, average: ModelEma) -> None:
        self._average = average

    def after_step(self) -> None:
        """Moves the average towards the weights."""
        self._average.update(unwrap(self.trainer.model))


class EvaluationHook(HookBase):
    """Evaluates periodically and at the end, stores results, keeps the best weights.

    Args:
        period: In iterations; 0 for the end only.
        evaluate: Gives the results; must be called in all processes.
        checkpoints: Where ``model_best.pth`` and ``results.json`` go.
        metric: What "best" goes by, such as ``bbox/AP``; larger is better.
        average: The average, if that is what gets evaluated.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], Results],
        checkpoints: RunCheckpoints,
        metric: str = "bbox/AP",
        average: ModelEma | None = None,
    ) -> None:
        self._period = period
        self._evaluate = evaluate
        self._checkpoints = checkpoints
        self._metric = metric
        self._average = average
        self.results: Results = {}
        self.evaluated_iteration = 0
        self.best: float | None = None
        self.best_iteration = 0

    def is_due(self, iteration: int) -> bool:
        """Whether to evaluate when ``iteration`` steps are done."""
        if iteration >= self.trainer.max_iter:
            return True
        return iteration > 0 and self._period > 0 and iteration % self._period == 0

    def before_train(self) -> None:
        """Makes up for an evaluation that an interrupted run had not finished."""
        start = self.trainer.start_iter
        if start > 0 and self.is_due(start) and self.evaluated_iteration < start:
            self.trainer.storage.iter = start - 1
            self._run(start)

    def after_step(self) -> None:
        """Evaluates when it is due."""
        iteration = self.trainer.iter + 1
        if self.is_due(iteration):
            self._run(iteration)

    def _run(self, iteration: int) -> None:
        results = self._evaluate()
        self.evaluated_iteration = iteration
        if results:
            self.results = results
            flat = {name: float(value) for name, value in flatten_results_dict(results).items()}
            self.trainer.storage.put_scalars(**flat, smoothing_hint=False)
            save_results(results, self._checkpoints.directory / "results.json", iteration)
            self._keep_best(flat.get(self._metric), iteration)
        comm.synchronize()

    def _keep_best(self, value: float | None, iteration: int) -> None:
        if value is None:
            logger.warning(
                "The evaluation gives no %s, so no best checkpoint is kept", self._metric
            )
            return
        if not math.isfinite(value):
            logger.warning(
                "%s is %s at iteration %d, which is not taken for the best",
                self._metric,
                value,
                iteration,
            )
            return
        if self.best is not None and value <= self.best:
            logger.info(
                "%s is %.4f; best so far %.4f (iteration %d)",
                self._metric,
                value,
                self.best,
                self.best_iteration,
            )
            return
        weights = (
            unwrap(self.trainer.model).state_dict()
            if self._average is None
            else self._average.average
        )
        content = {
            "model": dict(weights),
            "iteration": iteration,
            "metric": self._metric,
            "value": value,
        }
        path = self._checkpoints.save_best(content)
        self.best, self.best_iteration = value, iteration
        logger.info("%s is %.4f, the best so far; saved %s", self._metric, value, path)

    def state_dict(self) -> dict[str, Any]:
        """Gives what a checkpoint stores."""
        return {
            "evaluated_iteration": self.evaluated_iteration,
            "best": self.best,
            "best_iteration": self.best_iteration,
            "results": self.results,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave."""
        self.evaluated_iteration = int(state["evaluated_iteration"])
        self.best = state["best"]
        self.best_iteration = int(state["best_iteration"])
        self.results = {task: dict(metrics) for task, metrics in state["results"].items()}


class CheckpointHook(HookBase):
    """Saves the whole state of the run every ``period`` iterations and after the last one.

    Args:
        period: In iterations; 0 for the end only.
        checkpoints: Where to save.
        evaluation: Its best value is saved as well.
        average: The moving average, if there is one.
    """

    def __init__(
        self,
        period: int,
        checkpoints: RunCheckpoints,
        evaluation: EvaluationHook | None = None,
        average: ModelEma | None = None,
    ) -> None:
        self._period = period
        self._checkpoints = checkpoints
        self._evaluation = evaluation
        self._average = average

    def after_step(self) -> None:
        """Saves when it is due; all processes take part, the first one writes."""
        iteration = self.trainer.iter + 1
        is_final = iteration >= self.trainer.max_iter
        if not is_final and (self._period <= 0 or iteration % self._period != 0):
            return
        states = comm.gather(random_state())
        if comm.is_main_process():
            self._checkpoints.save(self._content(iteration, states), iteration, is_final)
        comm.synchronize()

    def _content(self, iteration: int, random_states: list[Any]) -> dict[str, Any]:
        content: dict[str, Any] = {
            "model": unwrap(self.trainer.model).state_dict(),
            "iteration": iteration,
            "trainer": self.trainer.state_dict(),
            "random_states": random_states,
            "events": self._recent_events(),
        }
        if self._average is not None:
            content["ema"] = self._average.state_dict()
        if self._evaluation is not None:
            content["evaluation"] = self._evaluation.state_dict()
        return content

    def _recent_events(self) -> dict[str, Any]:
        """Gives what smoothed logs look back on, so that a resumed run logs the same numbers."""
        storage = self.trainer.storage
        hints = storage.smoothing_hints()
        return {
            name: {
                "smooth": bool(hints[name]),
                "values": [
                    (float(value), int(iteration))
                    for value, iteration in history.values()[
                        -(HISTORY_LENGTH if hints[name] else 1) :
                    ]
                ],
            }
            for name, history in storage.histories().items()
        }


class WriterHook(HookBase):
    """Writes the logs periodically, after an evaluation, and at the end. First process only.

    Args:
        writers: Detectron2 event writers.
        period: In iterations.
        evaluation: Its iterations are written too.
        last_written: The last iteration that the logs hold, -1 for none.
    """

    def __init__(
        self,
        writers: list[EventWriter],
        period: int,
        evaluation: EvaluationHook | None,
        last_written: int = -1,
    ) -> None:
        self._writers = writers
        self._period = max(1, period)
        self._evaluation = evaluation
        self._last_written = last_written

    def _is_due(self, iteration: int) -> bool:
        is_evaluated = self._evaluation is not None and self._evaluation.is_due(iteration)
        return iteration % self._period == 0 or iteration >= self.trainer.max_iter or is_evaluated

    def before_train(self) -> None:
        """Writes what an interrupted run had computed but not logged."""
        start = self.trainer.start_iter
        if start > 0 and self._is_due(start) and self._last_written < start - 1:
            self.trainer.storage.iter = start - 1
            self._write()

    def after_step(self) -> None:
        """Writes when it is due."""
        if self._is_due(self.trainer.iter + 1):
            self._write()

    def after_train(self) -> None:
        """Closes the writers."""
        for writer in self._writers:
            writer.close()

    def _write(self) -> None:
        for writer in self._writers:
            writer.write()
