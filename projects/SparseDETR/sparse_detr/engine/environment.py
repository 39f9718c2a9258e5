"""What a run's log says about the machine and the software."""

from __future__ import annotations

import torch

from ..collect_env import collect_environment


def describe_environment(device: torch.device) -> str:
    """Gives the versions, the device and the operator backend of a run, as text for the log.

    Args:
        device: Where the run works.

    Returns:
        One line per fact.
    """
    facts = [*collect_environment(), ("this run works on", str(device))]
    width = max(len(name) for name, _ in facts)
    return "Environment:\n" + "\n".join(f"  {name:{width}s}  {value}" for name, value in facts)
