"""What a run's log says about the machine and the software."""

from __future__ import annotations

import platform
import sys

import detectron2
import torch
import torchvision


def describe_environment(device: torch.device) -> str:
    """Gives the versions, the device and the operator backend of a run, as text for the log.

    Args:
        device: Where the run works.

    Returns:
        The full report of ``sparse_detr.collect_env`` where that is installed, else the main versions.
    """
    lines = [
        f"Python {sys.version.split()[0]} on {platform.platform()}",
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, detectron2 {detectron2.__version__}",
        f"device {device}, {torch.get_num_threads()} threads",
    ]
    if device.type == "cuda":
        lines.append(f"GPU {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    return "\n".join(lines)
