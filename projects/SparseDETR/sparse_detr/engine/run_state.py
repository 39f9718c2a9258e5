"""The checkpoints of a run: what they hold, which are kept, and which one to go on from.

Role in the flow: a hook calls :meth:`RunCheckpoints.save`; a resumed run calls
:meth:`RunCheckpoints.latest_readable`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..config.overrides import sets_key
from .checkpoint_file import (
    UnreadableCheckpointError,
    file_digest,
    read_checkpoint,
    write_checkpoint,
    write_text,
)
from .errors import UserError

logger = logging.getLogger(__name__)

INDEX_NAME = "checkpoints.json"
LAST_NAME = "last_checkpoint"
BEST_NAME = "model_best.pth"
FINAL_NAME = "model_final.pth"


def weights_to_use(config: DictConfig, overrides: Sequence[str]) -> str:
    """Gives the checkpoint that evaluation and pictures are about; empty where there is none.

    A run's own checkpoint goes before the ``train.init_checkpoint`` that its saved config names:
    that one is what the run started from.

    Args:
        config: The config tree with overrides applied.
        overrides: The overrides of this command line.

    Returns:
        ``train.init_checkpoint`` of the command line, else the newest checkpoint in
        ``train.output_dir``, else ``train.init_checkpoint`` of the config.
    """
    start = str(config.train.init_checkpoint or "")
    if start and sets_key(overrides, "train.init_checkpoint"):
        return start
    return str(RunCheckpoints(str(config.train.output_dir)).newest_file() or start)


@dataclass(frozen=True)
class CheckpointEntry:
    """One line of the index.

    Attributes:
        file: Name in the output folder.
        iteration: Optimiser steps done.
        sha256: Checksum of the file; empty where unknown.
    """

    file: str
    iteration: int
    sha256: str = ""


class RunCheckpoints:
    """The checkpoint files in an output folder and their index ``checkpoints.json``.

    ``last_checkpoint`` holds the newest file's name, as Detectron2 writes it.

    Args:
        directory: The output folder; made when something is saved.
        max_to_keep: Periodic checkpoints to keep, at least 2, so that a damaged one has a
            predecessor.

    Raises:
        ValueError: ``max_to_keep`` is below 2.
    """

    def __init__(self, directory: str | Path, max_to_keep: int = 3) -> None:
        if max_to_keep < 2:
            raise ValueError(
                f"train.checkpointer.max_to_keep is {max_to_keep}, expected 2 or more (the "
                "previous one is the spare)"
            )
        self.directory = Path(directory)
        self.max_to_keep = int(max_to_keep)

    def entries(self) -> list[CheckpointEntry]:
        """Gives the checkpoints in the folder, oldest first.

        Without a readable index, the files ``model_<iteration>.pth`` are listed without checksums.
        """
        path = self.directory / INDEX_NAME
        try:
            listed = [
                CheckpointEntry(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))
            ]
        except FileNotFoundError:
            listed = self._entries_by_name()
        except (ValueError, TypeError, OSError) as error:
            logger.warning(
                "%s is unreadable (%s); looking at the checkpoint files themselves", path, error
            )
            listed = self._entries_by_name()
        return [entry for entry in listed if (self.directory / entry.file).is_file()]

    def _entries_by_name(self) -> list[CheckpointEntry]:
        found = []
        for path in sorted(self.directory.glob("model_*.pth")):
            number = path.stem[len("model_") :]
            if number.isdigit():
                found.append(CheckpointEntry(path.name, int(number) + 1))
        return found

    def save(self, content: dict[str, Any], iteration: int, is_final: bool = False) -> Path:
        """Writes a checkpoint, then removes those that are more than ``max_to_keep``.

        Args:
            content: What to store.
            iteration: Optimiser steps done.
            is_final: Names the file ``model_final.pth``.

        Returns:
            The file.

        Raises:
            UserError: It cannot be written; earlier checkpoints are untouched.
        """
        name = FINAL_NAME if is_final else f"model_{iteration - 1:07d}.pth"
        path = self.directory / name
        digest = write_checkpoint(content, path)
        kept = [entry for entry in self.entries() if entry.file != name]
        kept.append(CheckpointEntry(name, iteration, digest))
        removed, kept = kept[: -self.max_to_keep], kept[-self.max_to_keep :]
        write_text(
            json.dumps([asdict(entry) for entry in kept], indent=1), self.directory / INDEX_NAME
        )
        write_text(name, self.directory / LAST_NAME)
        for entry in removed:
            (self.directory / entry.file).unlink(missing_ok=True)
        logger.info("Saved %s (iteration %d)", path, iteration)
        return path

    def save_best(self, content: dict[str, Any]) -> Path:
        """Writes ``model_best.pth``, which is for use and not for resuming."""
        path = self.directory / BEST_NAME
        write_checkpoint(content, path)
        return path

    def remove_leftovers(self) -> None:
        """Removes temporary files of a process that was killed while it saved."""
        for path in self.directory.glob(".*.pth.*.tmp"):
            path.unlink(missing_ok=True)

    def newest_file(self) -> Path | None:
        """Gives the newest checkpoint file, unchecked, or None."""
        entries = self.entries()
        return self.directory / entries[-1].file if entries else None

    def latest_readable(self) -> tuple[dict[str, Any], CheckpointEntry] | None:
        """Gives the newest checkpoint that is whole, or None where there are no checkpoints at all.

        Returns:
            (content, entry). Each damaged one that was passed over is named in a warning.

        Raises:
            UserError: There are checkpoints, but none can be read.
        """
        entries = self.entries()
        problems = []
        for entry in reversed(entries):
            try:
                content = read_checkpoint(self.directory / entry.file, entry.sha256 or None)
                missing = {"model", "trainer", "iteration"} - content.keys()
                if missing:
                    raise UnreadableCheckpointError(
                        f"checkpoint {self.directory / entry.file} is not one of a run (it lacks "
                        f"{sorted(missing)})"
                    )
                return content, entry
            except UnreadableCheckpointError as error:
                logger.warning("%s; trying the one before it", error)
                problems.append(str(error))
        if problems:
            raise UserError(
                "cannot resume: no checkpoint in {} is readable: {}. Start anew without "
                "--resume, or in another "
                "train.output_dir".format(self.directory, "; ".join(problems))
            )
        return None

    def start_anew(self) -> None:
        """Lists no checkpoint: files of an earlier run stay, but nothing goes on from them.

        The index is emptied, not removed, since without one the files would be looked at.
        """
        write_text("[]", self.directory / INDEX_NAME)
        (self.directory / LAST_NAME).unlink(missing_ok=True)

    def drop_after(self, entry: CheckpointEntry) -> None:
        """Removes from the index what is newer than ``entry``; a resumed run writes it again."""
        kept = [other for other in self.entries() if other.iteration <= entry.iteration]
        if not entry.sha256:
            digest = file_digest(self.directory / entry.file)
            kept = [
                CheckpointEntry(e.file, e.iteration, digest) if e.file == entry.file else e
                for e in kept
            ]
        write_text(
            json.dumps([asdict(other) for other in kept], indent=1), self.directory / INDEX_NAME
        )
        write_text(entry.file, self.directory / LAST_NAME)
