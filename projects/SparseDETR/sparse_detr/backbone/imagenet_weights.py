"""Initialisation of a backbone from a local file of weights trained on ImageNet.

Reads torchvision's ResNet and Swin files, the Swin authors' files, files of self-supervised ResNets
and the backbone of a detector; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.modeling.backbone.resnet import ResNet
from torch import Tensor, nn

from ..engine.checkpoint_file import UnreadableCheckpointError, read_checkpoint
from .pretrained_keys import (
    AUTHORS_SWIN,
    RESNET,
    SWIN,
    TORCHVISION_RESNET,
    BackboneSource,
    find_backbone,
    tensors_of,
)
from .swin import SwinBackbone

# Stage and number of a residual block.
_BLOCK = re.compile(r"(res\d+\.|stages\.\d+\.blocks\.)(\d+)\.")


@dataclass(frozen=True)
class WeightReport:
    """What became of every key when a file was loaded.

    Attributes:
        loaded: keys of the backbone that the file filled.
        ignored: keys of the file that the backbone has no use for (classifier, batch counters).
        missing: keys of the backbone that keep their values (output norms of Swin).
    """

    loaded: tuple[str, ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        """One line with the three counts."""
        return (
            f"{len(self.loaded)} tensors loaded, {len(self.ignored)} of the file ignored, "
            f"{len(self.missing)} of the backbone not in the file"
        )


def load_imagenet_weights(backbone: nn.Module, path: str | Path) -> WeightReport:
    """Fills a ResNet or Swin backbone from a file of ImageNet weights, all or nothing.

    Args:
        backbone: Detectron2's ResNet or :class:`SwinBackbone`.
        path: a state dict saved by ``torch.save``, bare or under ``model`` or ``state_dict``.

    Returns:
        The keys loaded, ignored and missing.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: ``backbone`` is of another kind.
        ValueError: the file cannot be read without running code, holds no weight of this
            backbone, or a shape differs.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    try:
        content = read_checkpoint(path, allowed=(argparse.Namespace,))
    except UnreadableCheckpointError as error:
        raise ValueError(str(error)) from error
    return fill_backbone(backbone, content, str(path))


def fill_backbone(backbone: nn.Module, content: Mapping[str, Any], source: str) -> WeightReport:
    """Fills a ResNet or Swin backbone from the content of a weight file, all or nothing.

    Args:
        backbone: Detectron2's ResNet or :class:`SwinBackbone`.
        content: a state dict, bare or within other dicts (see
            :func:`sparse_detr.backbone.pretrained_keys.find_backbone`).
        source: its name, for messages.

    Returns:
        The keys loaded, ignored and missing.

    Raises:
        TypeError: ``backbone`` is of another kind.
        ValueError: ``content`` holds no weight of this backbone, is of one with more or fewer
            blocks, or a shape differs.
    """
    weights = _source_of(backbone, content, source)
    own = backbone.state_dict()
    found: dict[str, Tensor] = {}
    ignored: list[str] = []
    for key, tensor in weights.tensors.items():
        name = weights.name_here(key)
        if name is None or name not in own:
            ignored.append(key)
        else:
            found[name] = tensor
    if not found:
        raise ValueError(
            f"{source}: no key names a weight of this {type(backbone).__name__} "
            f"(first keys: {list(weights.tensors)[:3]}); give the file of the matching architecture"
        )
    _require_same_depth(found, [weights.name_here(key) for key in ignored], own, source)
    differing = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in found.items()
        if tensor.shape != own[name].shape
    ]
    if differing:
        raise ValueError(
            f"{source}: {len(differing)} shapes differ from the backbone's, first {differing[0]}; "
            "give the file of the matching size"
        )
    backbone.load_state_dict(found, strict=False)
    missing = tuple(name for name in own if name not in found)
    return WeightReport(tuple(found), tuple(ignored), missing)


def _require_same_depth(
    found: Mapping[str, Tensor],
    ignored: Iterable[str | None],
    own: Mapping[str, Tensor],
    source: str,
) -> None:
    """Raises where a stage of the file has other blocks than the backbone's stage."""
    blocks, filled = _blocks(own), _blocks(found)
    more = [b for b in _blocks(name for name in ignored if name) if b[0] in dict(blocks)]
    less = [b for b in blocks if b not in filled and b[0] in dict(filled)]
    for differing, how in ((more, "more"), (less, "fewer")):
        if differing:
            raise ValueError(
                f"{source}: the file has {how} blocks than the backbone "
                f"({''.join(differing[0])}, for example); give the "
                "file of the matching depth, or set the depth in the config "
                "(model.backbone.stages.depth for a ResNet)"
            )


def _blocks(names: Iterable[str]) -> list[tuple[str, str]]:
    """(stage, number) of each residual block that has a weight among ``names``."""
    found = (_BLOCK.match(name) for name in names)
    return list(dict.fromkeys((match[1], match[2]) for match in found if match))


def _source_of(backbone: nn.Module, content: Mapping[str, Any], source: str) -> BackboneSource:
    """The place of the backbone's weights; where none is found, the file's plain tensors."""
    if isinstance(backbone, ResNet):
        family, usual = RESNET, TORCHVISION_RESNET
    elif isinstance(backbone, SwinBackbone):
        family, usual = SWIN, AUTHORS_SWIN
    else:
        raise TypeError(
            f"backbone is a {type(backbone).__name__}; ImageNet files are known for Detectron2's "
            "ResNet and for SwinBackbone"
        )
    try:
        found = find_backbone(content, family)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    return found or BackboneSource(usual, "", "", tensors_of(content))
