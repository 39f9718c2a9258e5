"""Where a backbone's weights are in a file, and what they are called there.

Role in the flow: reading ``train.backbone_weights`` and converting files of pre-trained backbones.
A file is known by its keys alone: the place of the backbone (the dict it is in, the prefix of its
names) is found by a name that every backbone of a layout has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from .resnet_keys import (
    detectron2_to_released,
    released_to_detectron2,
    sequential_to_torchvision,
)
from .swin_keys import project_to_released, released_to_project, torchvision_to_project

RESNET = "ResNet"
SWIN = "Swin"

# Of two networks of one pre-training, the one that its authors do not hand on.
_SECOND_CHOICE = re.compile(r"encoder_k\b|momentum|target|student|ema\b")
_DEEPEST = 2

_RESNET_IGNORED = (
    (re.compile(r"num_batches_tracked$"), "batch counter, of no use to frozen norms"),
    (
        re.compile(r"^(fc|head|projection_head|projector|prototypes|predictor|mlp)\b"),
        "classifier or projection head of the pre-training",
    ),
)
_SWIN_IGNORED = (
    (re.compile(r"relative_position_index$|attn_mask$"), "computed here"),
    (re.compile(r"^(head|norm)\."), "classifier of the pre-training and its norm"),
)


@dataclass(frozen=True)
class Naming:
    """A way to name the weights of a backbone.

    Attributes:
        title: Whose layout it is, for messages.
        family: :data:`RESNET` or :data:`SWIN`.
        marker: A name that every backbone in this layout has.
        rename: From a name in this layout to the backbone's own name here, None where it has none.
    """

    title: str
    family: str
    marker: str
    rename: Callable[[str], str | None]

    def ignored_reason(self, name: str) -> str | None:
        """Why a name without place here may be left out; None where it may not."""
        patterns = _RESNET_IGNORED if self.family == RESNET else _SWIN_IGNORED
        return next((reason for pattern, reason in patterns if pattern.search(name)), None)


def _own_resnet_name(name: str) -> str | None:
    return name if detectron2_to_released(name) else None


def _own_swin_name(name: str) -> str | None:
    return name if project_to_released(name) else None


def _sequential_name(name: str) -> str | None:
    return released_to_detectron2(sequential_to_torchvision(name) or "", prefix="")


TORCHVISION_RESNET = Naming(
    "torchvision's ResNet",
    RESNET,
    "layer1.0.conv1.weight",
    partial(released_to_detectron2, prefix=""),
)
AUTHORS_SWIN = Naming(
    "the Swin authors' layout",
    SWIN,
    "layers.0.blocks.0.attn.qkv.weight",
    partial(released_to_project, prefix=""),
)
NAMINGS = (
    TORCHVISION_RESNET,
    Naming("numbered ResNet (SCRL)", RESNET, "4.0.conv1.weight", _sequential_name),
    Naming("Detectron2's ResNet", RESNET, "res2.0.conv1.weight", _own_resnet_name),
    AUTHORS_SWIN,
    Naming("torchvision's Swin", SWIN, "features.1.0.attn.qkv.weight", torchvision_to_project),
    Naming("this project's Swin", SWIN, "stages.0.blocks.0.attn.qkv.weight", _own_swin_name),
)


@dataclass(frozen=True)
class BackboneSource:
    """The backbone's place in a file.

    Attributes:
        naming: How its weights are named.
        container: Keys of the dict that holds them, joined by dots; empty for the file itself.
        prefix: What stands before their names.
        tensors: Everything in that dict, by key.
    """

    naming: Naming
    container: str
    prefix: str
    tensors: Mapping[str, Tensor]

    @property
    def place(self) -> str:
        """Container and prefix, for messages."""
        inside = f" in {self.container!r}" if self.container else ""
        before = f" after {self.prefix!r}" if self.prefix else ""
        return f"{self.naming.title}{inside}{before}"

    def name_here(self, key: str) -> str | None:
        """The backbone's own name of a key of the file; None where it has none."""
        if not key.startswith(self.prefix):
            return None
        return self.naming.rename(key[len(self.prefix) :])

    def ignored_reason(self, key: str) -> str | None:
        """Why a key without place in the backbone may be left out; None where it may not."""
        if not key.startswith(self.prefix):
            return "not of the backbone"
        return self.naming.ignored_reason(key[len(self.prefix) :])


def find_backbone(content: Mapping[str, Any], family: str | None = None) -> BackboneSource | None:
    """Finds the backbone in the content of a file.

    Where the pre-training kept two networks, the one is taken that its authors hand on: the query
    encoder (MoCo), the base encoder (MoCo v3), the online network (BYOL, SCRL), the teacher
    (DINO). Of a training here it is the weights themselves, not their moving average.

    Args:
        content: A state dict, bare or within other dicts.
        family: :data:`RESNET` or :data:`SWIN` looks for that only.

    Returns:
        Its place, or None where there is none.

    Raises:
        ValueError: There are several, and no rule tells which is meant.
    """
    found = [
        BackboneSource(naming, container, key[: -len(naming.marker)], tensors)
        for container, tensors in _tensor_dicts(content)
        for naming in NAMINGS
        if family in (None, naming.family)
        for key in tensors
        if key == naming.marker or key.endswith(f".{naming.marker}")
    ]
    if len(found) > 1:
        found = [s for s in found if not _SECOND_CHOICE.search(f"{s.container} {s.prefix}")]
        if len(found) != 1:
            places = ", ".join(source.place for source in found) or "all of them copies"
            raise ValueError(
                f"several backbones are in the file ({places}); save one of them alone"
            )
    return found[0] if found else None


def tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The named tensors of a file, which may lie under ``model`` or ``state_dict``."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _tensor_dicts(
    content: Mapping[str, Any], name: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield name, tensors
    if depth < _DEEPEST:
        for key, value in content.items():
            if isinstance(value, Mapping):
                yield from _tensor_dicts(value, f"{name}.{key}".lstrip("."), depth + 1)
