"""Counts the parameters of a detector, part by part, and as the release's table counts them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ..meta_arch import TransformerDetector

_AUXILIARY = "encoder auxiliary heads"
_BACKBONE = "backbone"


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a detector; shared ones count once, at their first place.

    Attributes:
        by_part: By part of the flow, in its order: (all, trainable).
    """

    by_part: dict[str, tuple[int, int]]

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(every for every, _ in self.by_part.values())

    @property
    def trainable(self) -> int:
        """Parameters that training changes."""
        return sum(trainable for _, trainable in self.by_part.values())

    @property
    def trainable_backbone(self) -> int:
        """Trainable ones of the backbone."""
        return self.by_part.get(_BACKBONE, (0, 0))[1]

    @property
    def as_released(self) -> int:
        """As the release's table counts: trainable ones, without the encoder's auxiliary heads."""
        return self.trainable - self.by_part.get(_AUXILIARY, (0, 0))[1]


def count_parameters(model: TransformerDetector) -> ParameterCount:
    """Gives the parameters of a detector.

    Args:
        model: The detector, on any device, "meta" included.
    """
    parts: dict[str, tuple[int, int]] = {}
    for part, parameter in _parameters(model):
        every, trainable = parts.get(part, (0, 0))
        count = parameter.numel()
        parts[part] = every + count, trainable + count * parameter.requires_grad
    return ParameterCount(parts)


def _parameters(model: TransformerDetector) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters in the order of the flow's parts, each with its part."""
    found = [(_part_of(name, model), parameter) for name, parameter in model.named_parameters()]
    order = {part: place for place, part in enumerate(dict.fromkeys(part for part, _ in found))}
    yield from sorted(found, key=lambda pair: order[pair[0]])


def _part_of(name: str, model: TransformerDetector) -> str:
    stage = re.match(r"heads\.stages\.(\d+)", name)
    if stage is None:
        return name.partition(".")[0].replace("_", " ")
    index = int(stage[1]) - model.heads.num_decoder_layers
    if index < 0:
        return "decoder heads"
    return "first-stage head" if model.heads.two_stage and index == 0 else _AUXILIARY
