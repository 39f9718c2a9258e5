"""A fresh Python process, for what is decided once per process or might end it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PACKAGE_PARENT = FOLDER.parents[1] / "projects" / "SparseDETR"


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter that finds the package and the modules of this folder.

    Args:
        program: Source text.
        environment: Variables set in addition.
    """
    path = f"{PACKAGE_PARENT}{os.pathsep}{FOLDER}"
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
