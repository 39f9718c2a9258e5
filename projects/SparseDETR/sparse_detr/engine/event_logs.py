"""The logs of a run: console, ``metrics.json``, TensorBoard, ``log.txt``.

Role in the flow: built before training; on resume, what was logged after the checkpoint is cut
away first.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import math
import os
import statistics
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)
from detectron2.utils.logger import setup_logger

from ..config.overrides import ConfigError
from .checkpoint_file import write_text
from .errors import ResultsMissedError, TrainingDivergedError, UserError
from .hooks import HISTORY_LENGTH

logger = logging.getLogger(__name__)

LOGGER_NAMES = ("sparse_detr", "detectron2", "fvcore")
METRICS_NAME = "metrics.json"


class RunLog:
    """Console output at once; ``log.txt``, complete, as soon as there is an output folder.

    Args:
        rank: Number of the process; only the first one writes to the console.
    """

    def __init__(self, rank: int = 0) -> None:
        self._rank = rank
        self._early = logging.handlers.MemoryHandler(
            capacity=100_000, flushLevel=logging.CRITICAL + 1
        )
        self._file: logging.Handler | None = None
        for name in LOGGER_NAMES:
            setup_logger(distributed_rank=rank, name=name)
            logging.getLogger(name).addHandler(self._early)

    def attach(self, directory: Path) -> None:
        """Opens ``log.txt`` (others: ``log.txt.rank<r>``) and writes what was logged so far."""
        name = "log.txt" if self._rank == 0 else f"log.txt.rank{self._rank}"
        self._file = logging.FileHandler(directory / name, encoding="utf-8")
        self._file.setFormatter(
            logging.Formatter(
                "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt="%m/%d %H:%M:%S"
            )
        )
        self._early.setTarget(self._file)
        for logger_name in LOGGER_NAMES:
            logging.getLogger(logger_name).addHandler(self._file)
        self._detach_early()

    def _detach_early(self) -> None:
        for name in LOGGER_NAMES:
            logging.getLogger(name).removeHandler(self._early)
        self._early.close()

    def record_end(self, error: BaseException) -> None:
        """Writes into the file why the run stops; the console gets that from the program.

        Args:
            error: What ended the run. Its message is complete for an error that the user can
                correct; anything else is a bug, whose traceback is needed.
        """
        if self._file is None:
            return
        if isinstance(error, (UserError, ConfigError, TrainingDivergedError, ResultsMissedError)):
            text = f"The run stopped: {error}"
        elif isinstance(error, KeyboardInterrupt):
            text = "The run was interrupted"
        else:
            text = "The run stopped:\n" + "".join(traceback.format_exception(error)).rstrip()
        record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, None, None)
        self._file.handle(record)

    def close(self) -> None:
        """Closes the file; the console stays."""
        self._detach_early()
        if self._file is not None:
            for name in LOGGER_NAMES:
                logging.getLogger(name).removeHandler(self._file)
            self._file.close()


def smoothed(storage: EventStorage, name: str) -> float | None:
    """Gives the median of a scalar's recent numbers, or None where there are none.

    Detectron2's own median is NaN as soon as one of the values is, for example Corr of a level
    that got no attention.

    Args:
        storage: The storage.
        name: A scalar that was put into it.
    """
    recent = storage.history(name).values()[-HISTORY_LENGTH:]
    numbers = [float(value) for value, _ in recent if math.isfinite(value)]
    return statistics.median(numbers) if numbers else None


class ModelScalarPrinter(EventWriter):
    """Prints what Detectron2's printer, which shows losses, leaves out: one short line.

    Gradient norm, kept tokens, Corr (per level too) and class error, as far as they are recorded.
    """

    def write(self) -> None:
        """Prints the line; nothing where none of the scalars is recorded."""
        storage = get_event_storage()
        recorded = storage.histories()
        levels = sorted(name for name in recorded if name.startswith("corr_level"))
        parts = []
        for name in ("grad_norm", "kept_tokens", "corr", *levels, "class_error"):
            value = smoothed(storage, name) if name in recorded else None
            if value is not None:
                parts.append(f"{name}: {value:.0f}" if value >= 1000 else f"{name}: {value:.3g}")
        if parts:
            logger.info(" iter: %d  %s", storage.iter, "  ".join(parts))


class ContinuedJsonWriter(JSONWriter):
    """Detectron2's json writer, which on resume does not repeat what the file holds already.

    What is new since the last line becomes one line. A scalar that is not recorded in every
    iteration would otherwise get a line of its own, dated back, and readers take a line that goes
    back for a resume. What is not a finite number is ``null``, as json has no other word for it.

    Args:
        path: ``metrics.json``.
        last_written: The last iteration in the file, -1 for none.
    """

    def __init__(self, path: str, last_written: int = -1) -> None:
        super().__init__(path, window_size=HISTORY_LENGTH)
        self._last_write = last_written

    def write(self) -> None:
        """Writes the line; nothing where nothing is new."""
        storage = get_event_storage()
        hints = storage.smoothing_hints()
        line: dict[str, float | int | None] = {}
        last = self._last_write
        for name, (value, iteration) in storage.latest().items():
            if iteration <= self._last_write:
                continue
            last = max(last, iteration)
            finite = float(value) if math.isfinite(value) else None
            line[name] = smoothed(storage, name) if hints[name] else finite
        if not line:
            return
        self._last_write = last
        line["iteration"] = last
        self._file_handle.write(json.dumps(line, sort_keys=True) + "\n")
        self._file_handle.flush()
        os.fsync(self._file_handle.fileno())


class ContinuedTensorboardWriter(TensorboardXWriter):
    """Detectron2's TensorBoard writer, likewise.

    Args:
        directory: Folder of the event files.
        last_written: The last iteration that was logged, -1 for none.
    """

    def __init__(self, directory: str, last_written: int = -1) -> None:
        super().__init__(directory, window_size=HISTORY_LENGTH)
        self._last_write = last_written


def build_writers(output_dir: Path, max_iter: int, last_written: int) -> list[EventWriter]:
    """Gives the console printers, the json writer and, where it is installed, TensorBoard.

    Args:
        output_dir: Folder of the run.
        max_iter: Last iteration, for the ETA.
        last_written: The last iteration that the logs hold, -1 for none.

    Returns:
        The writers.
    """
    writers: list[EventWriter] = [
        CommonMetricPrinter(max_iter),
        ModelScalarPrinter(),
        ContinuedJsonWriter(str(output_dir / METRICS_NAME), last_written),
    ]
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        logger.warning("tensorboard is not installed; no TensorBoard logs are written")
        return writers
    writers.append(ContinuedTensorboardWriter(str(output_dir / "tensorboard"), last_written))
    return writers


def trim_metrics(output_dir: Path, iteration: int) -> int:
    """Removes from ``metrics.json`` what was logged from ``iteration`` on, and broken lines.

    Args:
        output_dir: Folder of the run.
        iteration: Optimiser steps that the run goes on from.

    Returns:
        The last iteration in the file, -1 for none.
    """
    path = output_dir / METRICS_NAME
    if not path.is_file():
        return -1
    kept, last = [], -1
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            logged = int(json.loads(line)["iteration"])
        except (ValueError, KeyError, TypeError):
            continue
        if logged < iteration:
            kept.append(line)
            last = max(last, logged)
    write_text("".join(f"{line}\n" for line in kept), path)
    return last


def refill_events(storage: EventStorage, events: Mapping[str, Any]) -> None:
    """Puts the recent scalars of a checkpoint back into a storage.

    Args:
        storage: The storage of the resumed run; its iteration is afterwards as before.
        events: As :class:`sparse_detr.engine.hooks.CheckpointHook` stored them.
    """
    now = storage.iter
    for name, event in events.items():
        for value, iteration in event["values"]:
            storage.iter = iteration
            storage.put_scalar(name, value, smoothing_hint=event["smooth"])
    storage.iter = now
