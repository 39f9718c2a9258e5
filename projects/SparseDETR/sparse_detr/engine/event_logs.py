"""The logs of a run: console, ``metrics.json``, TensorBoard, ``log.txt``.

Role in the flow: built before training; on resume, what was logged after the checkpoint is cut
away first.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.logger import setup_logger

from .checkpoint_file import write_text
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

    def close(self) -> None:
        """Closes the file; the console stays."""
        self._detach_early()
        if self._file is not None:
            for name in LOGGER_NAMES:
                logging.getLogger(name).removeHandler(self._file)
            self._file.close()


class ContinuedJsonWriter(JSONWriter):
    """Detectron2's json writer, which on resume does not repeat what the file holds already.

    Args:
        path: ``metrics.json``.
        last_written: The last iteration in the file, -1 for none.
    """

    def __init__(self, path: str, last_written: int = -1) -> None:
        super().__init__(path, window_size=HISTORY_LENGTH)
        self._last_write = last_written


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
    """Gives the console printer with ETA, the json writer and, where it is installed, TensorBoard.

    Args:
        output_dir: Folder of the run.
        max_iter: Last iteration, for the ETA.
        last_written: The last iteration that the logs hold, -1 for none.

    Returns:
        The writers.
    """
    writers: list[EventWriter] = [
        CommonMetricPrinter(max_iter),
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
