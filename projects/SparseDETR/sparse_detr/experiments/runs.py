"""Runs of settings: each in a process of its own, resumed where it was interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.checkpoint_file import write_text
from .settings import ExperimentData, ExperimentSetting

_PROGRAM = "import sys; from sparse_detr.engine.program import run; sys.exit(run(sys.argv[1:]))"
_RECORD = "experiment.json"
_LOG_LINES_SHOWN = 15


class RunFailedError(RuntimeError):
    """A training run ended without results; the message holds the end of its output."""


@dataclass(frozen=True)
class ExperimentPlan:
    """Where and how runs are made.

    Attributes:
        data: What to train on.
        output: Folder of all runs; one folder below it per data set, setting and seed.
        overrides: Changes to the config of every run, as ``key=value``.
        threads: Threads of a run.
    """

    data: ExperimentData
    output: Path
    overrides: tuple[str, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class ExperimentRun:
    """One setting with one seed.

    Attributes:
        plan: Where and how.
        setting: What.
        seed: Of weights and data order.
    """

    plan: ExperimentPlan
    setting: ExperimentSetting
    seed: int

    @property
    def folder(self) -> Path:
        """Output folder of the run."""
        return self.plan.output / self.plan.data.name / f"{self.setting.name}_seed{self.seed}"

    def command(self) -> list[str]:
        """Arguments of the training program; overrides of the plan win."""
        return [
            "--config-file",
            self.setting.config(self.plan.data),
            "--resume",
            *self.setting.overrides(),
            f"train.seed={self.seed}",
            f"train.output_dir={self.folder}",
            *self.plan.overrides,
        ]

    def record(self) -> dict[str, Any] | None:
        """What the finished run left, or None where it is not finished with these arguments.

        Returns:
            ``results`` (metrics by task), ``iterations``, ``seconds`` and ``command``.
        """
        try:
            found: dict[str, Any] = json.loads((self.folder / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if found.get("command") == self.command() else None


def run_experiment(run: ExperimentRun) -> dict[str, Any]:
    """Gives the record of a run, making it where it is not there.

    An interrupted run goes on from its last checkpoint; then ``seconds`` counts only the last part
    and is None.

    Args:
        run: The run.

    Raises:
        RunFailedError: The training program failed.
    """
    record = run.record()
    if record is not None:
        return record
    _claim_folder(run)
    resumed = (run.folder / "last_checkpoint").exists()
    log = run.folder / "output.txt"
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(run.plan.threads)}
    with log.open("a", encoding="utf-8") as stream:
        status = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *run.command()],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        ).returncode
    seconds = time.perf_counter() - started
    if status != 0:
        end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        raise RunFailedError(
            f"{run.plan.data.name}, {run.setting.title}, seed {run.seed}: the training program "
            f"ended with status {status}; the end of {log}:\n" + "\n".join(end)
        )
    results = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
    record = {
        "command": run.command(),
        "results": results["results"],
        "iterations": results["iteration"],
        "seconds": None if resumed else seconds,
    }
    write_text(json.dumps(record, indent=1) + "\n", run.folder / _RECORD)
    return record


def _claim_folder(run: ExperimentRun) -> None:
    """Refuses a folder of a run with other arguments; notes this run's otherwise."""
    note = run.folder / "arguments.json"
    run.folder.mkdir(parents=True, exist_ok=True)
    if note.exists():
        earlier = json.loads(note.read_text(encoding="utf-8"))
        if earlier != run.command():
            different = sorted(set(earlier) ^ set(run.command()))
            raise RunFailedError(
                f"{run.folder} holds a run with other arguments ({', '.join(different)}); give "
                "another --output or remove it"
            )
    else:
        write_text(json.dumps(run.command(), indent=1) + "\n", note)
