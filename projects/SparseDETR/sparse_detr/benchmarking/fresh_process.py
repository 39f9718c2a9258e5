"""Calls a function of this package in a process of its own.

Role in the flow: peak memory is only known from a process that did nothing else, and the
instruction set of the operators is chosen once, when they are loaded.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The line of the standard output that holds the result.
_MARK = "sparse_detr result: "
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class FreshProcessError(RuntimeError):
    """The process ended without a result; the message holds the end of its error output."""


def call_in_fresh_process(
    function: str,
    arguments: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 900,
) -> Any:
    """Gives the result of a function that ran in a new Python process.

    Args:
        function: "module:name", below ``sparse_detr``.
        arguments: Keyword arguments; what JSON can hold.
        environment: Variables to set in addition to this process's own.
        timeout_seconds: Longest wait.

    Returns:
        What the function gave, through JSON.

    Raises:
        FreshProcessError: The process failed or took too long.
    """
    paths = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        **(environment or {}),
    }
    command = [sys.executable, "-m", __name__, function, json.dumps(dict(arguments))]
    try:
        done = subprocess.run(
            command,
            env=variables,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FreshProcessError(f"{function} took longer than {timeout_seconds} s") from error
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            return json.loads(line[len(_MARK) :])
    tail = "\n".join(done.stderr.splitlines()[-8:])
    raise FreshProcessError(f"{function} ended with status {done.returncode}:\n{tail}")


def main(arguments: list[str]) -> int:
    """Calls ``arguments[0]`` with the JSON object ``arguments[1]`` and prints what it gives."""
    module_name, _, name = arguments[0].partition(":")
    if not module_name.startswith("sparse_detr."):
        raise ValueError(f"function must be below sparse_detr, got {arguments[0]!r}")
    function = getattr(importlib.import_module(module_name), name)
    print(_MARK + json.dumps(function(**json.loads(arguments[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
