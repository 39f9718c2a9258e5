"""What a measurement was made on: figures mean nothing without it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..layers.backend import describe_backend, extension_status

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Gives machine, software and settings of this process, ready for JSON.

    Args:
        device: Device of the measurements.
    """
    return {
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": processor_name(_text(_CPUINFO)) or platform.processor() or platform.machine(),
        "logical_cpus": os.cpu_count(),
        "usable_cpus": _usable_cpus(),
        "memory_gib": memory_gib(_text(_MEMINFO)),
        "load_average": _load_average(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": _device_name(device),
        "backend": describe_backend(device.type),
        "cpu_capability": cpu_capability(),
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def cpu_capability() -> str | None:
    """Instruction set of the compiled operators; None where there are none or they do not say."""
    if not extension_status.loaded:
        return None
    from sparse_detr import _C  # type: ignore[attr-defined, unused-ignore]

    name = getattr(_C, "cpu_capability", None)
    return None if name is None else str(name() if callable(name) else name)


def processor_name(cpuinfo: str) -> str:
    """Gives the model name from the text of /proc/cpuinfo; empty if it has none."""
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def memory_gib(meminfo: str) -> float | None:
    """Gives the memory in GiB from the text of /proc/meminfo; None if it is not there."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return round(int(line.split()[1]) / 2**20, 1)
    return None


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """Gives a description for people, one fact a line."""
    return [f"{name.replace('_', ' ')}: {value}" for name, value in machine.items()]


def machine_sentence(machine: Mapping[str, Any]) -> str:
    """Gives what a page has to say of a machine and its software.

    Args:
        machine: Of :func:`describe_machine`.
    """
    system = " ".join(str(machine["system"]).split("-")[:2])
    threads = machine["threads"]
    device = "" if machine["device"] == "cpu" else f"{machine['device']}, "
    return (
        f"Measured on {str(machine['measured_at'])[:10]} on {device}{machine['processor']}, "
        f"{machine['usable_cpus']} of {machine['logical_cpus']} logical processors, "
        f"{machine['memory_gib']} GiB; {system}, Python {machine['python']}, "
        f"torch {machine['torch']}, {threads} thread{'' if threads == 1 else 's'}; "
        f"{machine['backend']}"
    )


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def _usable_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _load_average() -> list[float] | None:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):  # not every system has one
        return None


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
