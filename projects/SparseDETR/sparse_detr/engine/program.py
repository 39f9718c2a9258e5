"""The program behind ``train_net.py``: processes, messages and exit codes.

Role in the flow: parse, start the processes, run a session in each. Wrong input ends as one
message on stderr and exit code 2; a failed run as code 1; a bug keeps its traceback.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

import torch
from detectron2.utils import comm
from omegaconf import DictConfig

from ..config.loading import load_config
from ..config.overrides import ConfigError
from .arguments import parse_arguments
from .errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    ResultsMissedError,
    TrainingDivergedError,
    UserError,
)
from .launching import ProcessPlan, launch

_SECONDS_FOR_FIRST_PROCESS = 15.0


def run(argv: list[str] | None = None) -> int:
    """Gives the exit code of ``train_net.py`` after doing all of its work.

    Args:
        argv: The arguments without the program name; None takes those of the process.

    Returns:
        0 done, 1 the run failed, 2 the input has to be corrected, 130 interrupted.
    """
    arguments = parse_arguments(argv)
    try:
        config = load_config(arguments.config_file, arguments.overrides)
        _require_sections(config)
        on_gpu = torch.cuda.is_available() and str(config.train.device) != "cpu"
        plan = ProcessPlan(
            arguments.num_gpus,
            arguments.num_machines,
            arguments.machine_rank,
            arguments.dist_url,
            on_gpu,
        )
        return launch(run_process, plan, (arguments,))
    except (UserError, ConfigError) as error:
        return _report(error, EXIT_USAGE, arguments.traceback)
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the last checkpoint", file=sys.stderr)
        return EXIT_INTERRUPTED


def _require_sections(config: DictConfig) -> None:
    missing = [
        name
        for name in ("model", "dataloader", "optimizer", "schedule", "train")
        if name not in config
    ]
    if missing:
        raise ConfigError(
            f"the config has no {', '.join(missing)}; a run file needs model, dataloader, "
            "optimizer, schedule and "
            "train (import them from configs/common)"
        )


def run_process(arguments: argparse.Namespace) -> int:
    """Gives the exit code of one process of the run.

    Args:
        arguments: The parsed command line.

    Returns:
        0, 1 or 2 as :func:`run`.
    """
    from .session import run_session

    try:
        run_session(load_config(arguments.config_file, arguments.overrides), arguments)
        return EXIT_OK
    except (UserError, ConfigError) as error:
        if comm.get_rank() > 0:
            # Where all processes have met the same error, the first one says it, and its end
            # ends the others while they sleep. A process that comes through is alone with it.
            time.sleep(_SECONDS_FOR_FIRST_PROCESS)
        return _report(error, EXIT_USAGE, arguments.traceback)
    except (TrainingDivergedError, ResultsMissedError) as error:
        return _report(error, EXIT_FAILED, arguments.traceback)


def _report(error: Exception, code: int, with_traceback: bool) -> int:
    if with_traceback:
        traceback.print_exception(error, file=sys.stderr)
    print(f"error: {error}", file=sys.stderr, flush=True)
    return code
