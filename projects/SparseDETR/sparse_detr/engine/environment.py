"""What a run's log says about the machine and the software."""

from __future__ import annotations

import torch

from ..collect_env import collect_environment


def describe_environment(device: torch.device) -> str:
    """Gives the versions, the device and its operator backend, as text for the log.

    Args:
        device: Where the run works.

    Returns:
        One line per fact.
    """
    other = [f"operators on {kind}" for kind in ("cpu", "cuda") if kind != device.type]
    facts = [fact for fact in collect_environment() if fact[0] not in other]
    facts.append(("this run works on", str(device)))
    width = max(len(name) for name, _ in facts)
    return "Environment:\n" + "\n".join(f"  {name:{width}s}  {value}" for name, value in facts)
