"""ImageNet initialisation of a backbone from a local file of classification weights.

Reads torchvision's ResNet and Swin files and the Swin authors' files; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.modeling.backbone.resnet import ResNet
from torch import Tensor, nn

from ..engine.checkpoint_file import UnreadableCheckpointError, read_checkpoint
from .resnet_keys import released_to_detectron2
from .swin import SwinBackbone
from .swin_keys import released_to_project, torchvision_to_project

# Names under which training programs nest the weights in a checkpoint.
_WEIGHT_KEYS = ("model", "state_dict")


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
        content = read_checkpoint(path)
    except UnreadableCheckpointError as error:
        raise ValueError(str(error)) from error
    return fill_backbone(backbone, content, str(path))


def fill_backbone(backbone: nn.Module, content: Mapping[str, Any], source: str) -> WeightReport:
    """Fills a ResNet or Swin backbone from the content of a weight file, all or nothing.

    Args:
        backbone: Detectron2's ResNet or :class:`SwinBackbone`.
        content: a state dict, bare or under ``model`` or ``state_dict``.
        source: its name, for messages.

    Returns:
        The keys loaded, ignored and missing.

    Raises:
        TypeError: ``backbone`` is of another kind.
        ValueError: ``content`` holds no weight of this backbone, or a shape differs.
    """
    weights = _tensors_of(content)
    rename = _renaming(backbone, weights)
    own = backbone.state_dict()
    found: dict[str, Tensor] = {}
    ignored: list[str] = []
    for key, tensor in weights.items():
        name = rename(key)
        if name is None or name not in own:
            ignored.append(key)
        else:
            found[name] = tensor
    if not found:
        raise ValueError(
            f"{source}: no key names a weight of this {type(backbone).__name__} "
            f"(first keys: {list(weights)[:3]}); give the file of the matching architecture"
        )
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


def _tensors_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Gives the named tensors of a weight file's content."""
    for key in _WEIGHT_KEYS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _renaming(backbone: nn.Module, weights: Mapping[str, Tensor]) -> Callable[[str], str | None]:
    """The function from a key of the file to a key of the backbone."""
    if isinstance(backbone, ResNet):
        return partial(released_to_detectron2, prefix="")
    if isinstance(backbone, SwinBackbone):
        if any(key.startswith("features.") for key in weights):
            return torchvision_to_project
        return partial(released_to_project, prefix="")
    raise TypeError(
        f"backbone is a {type(backbone).__name__}; ImageNet files are known for Detectron2's "
        "ResNet and for SwinBackbone"
    )
