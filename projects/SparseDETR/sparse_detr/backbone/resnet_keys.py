"""Names of ResNet weights: torchvision's layout, which released checkpoints use, and Detectron2's.

The same tensors in both; only the names differ. Reading and writing weights go through here.
"""

from __future__ import annotations

import re

RELEASED_PREFIX = "backbone.0.body."

_NORM = r"(?P<leaf>weight|bias|running_mean|running_var)"
_TORCHVISION_BLOCK = re.compile(r"layer(?P<stage>[1-4])\.(?P<block>\d+)\.(?P<rest>.+)")
_DETECTRON2_BLOCK = re.compile(r"res(?P<stage>[2-5])\.(?P<block>\d+)\.(?P<rest>.+)")
_TORCHVISION_NORM = re.compile(rf"bn(?P<number>[1-3])\.{_NORM}")
_DETECTRON2_NORM = re.compile(rf"conv(?P<number>[1-3])\.norm\.{_NORM}")
_TORCHVISION_SHORTCUT_NORM = re.compile(rf"downsample\.1\.{_NORM}")
_DETECTRON2_SHORTCUT_NORM = re.compile(rf"shortcut\.norm\.{_NORM}")
_CONV = re.compile(r"conv[1-3]\.weight")
# Places of torchvision's modules in a sequence that is made of them in order.
_SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def released_to_detectron2(key: str, prefix: str = RELEASED_PREFIX) -> str | None:
    """Detectron2's name of a released (torchvision) ResNet weight.

    Args:
        key: released name, such as ``backbone.0.body.layer1.0.bn1.weight``.
        prefix: what stands before the torchvision name; empty for torchvision's own files.

    Returns:
        Name inside Detectron2's ResNet (``res2.0.conv1.norm.weight``), or None when the backbone
        has no such weight: other prefix, classifier, batch counters.
    """
    if not key.startswith(prefix):
        return None
    name = key.removeprefix(prefix)
    match = _TORCHVISION_BLOCK.fullmatch(name)
    if match is None:
        rest = _rest_to_detectron2(name)
        # The stem has one convolution and no shortcut.
        return f"stem.{rest}" if rest is not None and rest.startswith("conv1.") else None
    rest = _rest_to_detectron2(match["rest"])
    return None if rest is None else f"res{int(match['stage']) + 1}.{match['block']}.{rest}"


def detectron2_to_released(key: str, prefix: str = RELEASED_PREFIX) -> str | None:
    """Released (torchvision) name of a weight of Detectron2's ResNet.

    Args:
        key: name inside Detectron2's ResNet, such as ``stem.conv1.norm.weight``.
        prefix: what to put before the torchvision name; empty for torchvision's own.

    Returns:
        Released name (``backbone.0.body.bn1.weight``), or None when there is none.
    """
    match = _DETECTRON2_BLOCK.fullmatch(key)
    if match is None:
        rest = _rest_to_torchvision(key.removeprefix("stem."))
        is_stem = key.startswith("stem.conv1.")
        return f"{prefix}{rest}" if rest is not None and is_stem else None
    rest = _rest_to_torchvision(match["rest"])
    if rest is None:
        return None
    return f"{prefix}layer{int(match['stage']) - 1}.{match['block']}.{rest}"


def sequential_to_torchvision(key: str) -> str | None:
    """Torchvision's name of a ResNet weight that is named by its place in a sequence of modules.

    Args:
        key: such as ``4.0.conv1.weight``, of ``layer1``.

    Returns:
        torchvision's name (``layer1.0.conv1.weight``), or None at places without weights.

    Source: SCRL and BYOL files of kakaobrain/scrl, as Sparse DETR's released code reads them.
    """
    place, _, rest = key.partition(".")
    return f"{_SEQUENTIAL[place]}.{rest}" if place in _SEQUENTIAL and rest else None


def _rest_to_detectron2(rest: str) -> str | None:
    """Name inside a block or the stem, in Detectron2's way."""
    if _CONV.fullmatch(rest):
        return rest
    if rest == "downsample.0.weight":
        return "shortcut.weight"
    if match := _TORCHVISION_NORM.fullmatch(rest):
        return f"conv{match['number']}.norm.{match['leaf']}"
    if match := _TORCHVISION_SHORTCUT_NORM.fullmatch(rest):
        return f"shortcut.norm.{match['leaf']}"
    return None


def _rest_to_torchvision(rest: str) -> str | None:
    """Name inside a block or the stem, in torchvision's way."""
    if _CONV.fullmatch(rest):
        return rest
    if rest == "shortcut.weight":
        return "downsample.0.weight"
    if match := _DETECTRON2_NORM.fullmatch(rest):
        return f"bn{match['number']}.{match['leaf']}"
    if match := _DETECTRON2_SHORTCUT_NORM.fullmatch(rest):
        return f"downsample.1.{match['leaf']}"
    return None
