"""What files of detectors tell by their names and shapes, and by the arguments of their training.

Role in the flow: the formats of released files ask here what they have in common.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from ..config.loading import load_config

_SWIN = {96: "swint", 128: "swinb_384", 192: "swinl"}


@dataclass(frozen=True)
class BackboneNames:
    """Names of a backbone's weights in a kind of files.

    Attributes:
        prefix: Of a Swin's names.
        blocks: Pattern of the names of a ResNet's third stage, the number of the block in a group.
    """

    prefix: str
    blocks: str


DETECTRON2_NAMES = BackboneNames("backbone.", r"backbone\.res4\.(\d+)\.")
TORCHVISION_NAMES = BackboneNames("backbone.0.", r"backbone\.0\.body\.layer3\.(\d+)\.")


def numbers(keys: Iterable[str], pattern: str) -> set[int]:
    """The numbers in the first group of a pattern, of the keys that begin with it."""
    return {int(match[1]) for key in keys if (match := re.match(pattern, key))}


def layer_count(keys: Iterable[str], part: str) -> int:
    """Layers of the encoder or the decoder."""
    return len(numbers(keys, rf"transformer\.{part}\.layers\.(\d+)\."))


def backbone_of(weights: Mapping[str, Tensor], names: BackboneNames) -> tuple[str, str]:
    """Name of the backbone in config names, and in words.

    Args:
        weights: Tensors by released name.
        names: Whose names the backbone has.

    Raises:
        ValueError: It is none of those that configs are shipped for.
    """
    table = f"{names.prefix}layers.0.blocks.0.attn.relative_position_bias_table"
    if table in weights:
        width = len(weights[f"{names.prefix}patch_embed.proj.weight"])
        window = (int(len(weights[table]) ** 0.5) + 1) // 2
        name = _SWIN.get(width)
        if name == "swinl" and window == 12:
            name = "swinl_384"
        known = {"swint": 7, "swinb_384": 12, "swinl": 7, "swinl_384": 12}
        if name is None or known[name] != window:
            raise ValueError(f"a Swin of width {width} with windows of {window} is not known")
        return name, f"Swin of width {width} with windows of {window}"
    count = len(numbers(weights, names.blocks))
    depth = {6: 50, 23: 101}.get(count)
    if depth is None:
        raise ValueError(f"the ResNet has {count} blocks in its third stage, expected 6 or 23")
    return f"r{depth}", f"ResNet-{depth}"


def backbone_with_config(
    weights: Mapping[str, Tensor], names: BackboneNames, system: str, shipped: Iterable[str]
) -> tuple[str, str]:
    """As :func:`backbone_of`, of those that a system has configs for.

    Args:
        weights: Tensors by released name.
        names: Whose names the backbone has.
        system: Name of the system, for the message.
        shipped: Names of its backbones.

    Raises:
        ValueError: It is none of them.
    """
    name, words = backbone_of(weights, names)
    if name not in shipped:
        raise ValueError(f"no config of {system} is shipped for a {words}")
    return name, words


def layers_and_queries(weights: Mapping[str, Tensor], queries: str) -> dict[str, object]:
    """Numbers of layers and queries, by their places below ``model``.

    Args:
        weights: Tensors by released name.
        queries: Name of the tensor with a row for each query.
    """
    return {
        "encoder.num_layers": layer_count(weights, "encoder"),
        "decoder.num_layers": layer_count(weights, "decoder"),
        "query_selection.num_queries": len(weights[queries]),
    }


def config_changes(config: str, values: Mapping[str, object]) -> tuple[str, ...]:
    """Changes of a config after which it has some values; those that it has already are left out.

    Args:
        config: Name of the config.
        values: By their places below ``model``.
    """
    model = load_config(config).model
    return tuple(
        f"model.{place}={'null' if value is None else value}"
        for place, value in values.items()
        if OmegaConf.select(model, place) != value
    )


def training_arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a released training; empty where the file has none."""
    found = content.get("args")
    return vars(found) if isinstance(found, argparse.Namespace) else {}


def dilation(content: Mapping[str, Any]) -> tuple[bool, tuple[str, ...]]:
    """Whether the backbone of a file is dilated (DC5), and a remark where it does not say so."""
    given = training_arguments(content)
    if "dilation" in given:
        return bool(given["dilation"]), ()
    remark = "the file does not say whether its backbone is dilated (DC5); it is taken for plain"
    return False, (remark,)
