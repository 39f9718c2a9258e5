#!/usr/bin/env python
"""Trains or evaluates a detector: ``train_net.py --config-file FILE_OR_NAME [key=value ...]``.

``train_net.py --help`` lists the options. The work is done by ``sparse_detr.engine``; this file
finds the package (installed, or in the repository beside this file) and hands over.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main() -> int:
    """Gives the exit code: 0 done, 1 the run failed, 2 the input has to be corrected."""
    if importlib.util.find_spec("sparse_detr") is None:
        sys.path.insert(0, str(Path(__file__).resolve().parent / "projects" / "SparseDETR"))
    from sparse_detr.engine.arguments import parse_arguments

    # Wrong usage and --help are answered before torch and Detectron2 are imported, which takes
    # seconds.
    parse_arguments()
    from sparse_detr.engine.program import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
