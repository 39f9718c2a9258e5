"""Names of Swin weights: released checkpoints, torchvision's files and this project's backbone.

The same tensors in all three, patch merging order included: the four tokens of a 2x2 patch are
joined as (row, column) = (0,0), (1,0), (0,1), (1,1). Only the names differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

RELEASED_PREFIX = "backbone.0.body."

_PATCH_EMBED = re.compile(r"patch_embed\.(proj|norm)\.(weight|bias)")
_OUTPUT_NORM = re.compile(r"norm\d+\.(weight|bias)")
_RELEASED_LAYER = re.compile(r"layers\.(?P<stage>\d+)\.(?P<rest>.+)")
_PROJECT_STAGE = re.compile(r"stages\.(?P<stage>\d+)\.(?P<rest>.+)")
_PROJECT_REST = re.compile(
    r"blocks\.\d+\.(norm[12]\.(weight|bias)|attn\.relative_position_bias_table"
    r"|attn\.(qkv|proj)\.(weight|bias)|mlp\.[03]\.(weight|bias))"
    r"|downsample\.(reduction\.weight|norm\.(weight|bias))"
)
_TORCHVISION_FEATURE = re.compile(r"features\.(?P<layer>\d+)\.(?P<rest>.+)")
_TORCHVISION_PATCH_EMBED = {"0": "proj", "2": "norm"}


def released_to_project(key: str, prefix: str = RELEASED_PREFIX) -> str | None:
    """This backbone's name of a released Swin weight.

    Args:
        key: released name, such as ``backbone.0.body.layers.0.blocks.0.mlp.fc1.weight``.
        prefix: what stands before the name; empty for the Swin authors' ImageNet files.

    Returns:
        Name inside :class:`SwinBackbone` (``stages.0.blocks.0.mlp.0.weight``), or None when it has
        no such weight: other prefix, classifier, computed buffers.
    """
    if not key.startswith(prefix):
        return None
    name = key.removeprefix(prefix)
    if _PATCH_EMBED.fullmatch(name) or _OUTPUT_NORM.fullmatch(name):
        return name
    match = _RELEASED_LAYER.fullmatch(name)
    if match is None:
        return None
    rest = match["rest"].replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.3.")
    return f"stages.{match['stage']}.{rest}" if _PROJECT_REST.fullmatch(rest) else None


def project_to_released(key: str, prefix: str = RELEASED_PREFIX) -> str | None:
    """Released name of a weight of this backbone.

    Args:
        key: name inside :class:`SwinBackbone`.
        prefix: what to put before the name.

    Returns:
        Released name, or None when there is none.
    """
    if _PATCH_EMBED.fullmatch(key) or _OUTPUT_NORM.fullmatch(key):
        return prefix + key
    match = _PROJECT_STAGE.fullmatch(key)
    if match is None or not _PROJECT_REST.fullmatch(match["rest"]):
        return None
    rest = match["rest"].replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
    return f"{prefix}layers.{match['stage']}.{rest}"


def relative_position_keys(released: Iterable[str]) -> list[str]:
    """Released names of the indices that are computed here: one beside every bias table.

    Args:
        released: Released names of the weights.
    """
    table, index = "relative_position_bias_table", "relative_position_index"
    return [key[: -len(table)] + index for key in released if key.endswith(f".attn.{table}")]


def relative_position_index(window: int = 7) -> Tensor:
    """The index of released files: the row of the bias table for each pair of tokens of a window.

    Args:
        window: Tokens along a side.

    Returns:
        (T, T) int64, T = tokens of a window.
    """
    tokens = torch.arange(window * window)
    rows, columns = tokens // window, tokens % window
    row_offset = rows[:, None] - rows[None, :] + window - 1
    column_offset = columns[:, None] - columns[None, :] + window - 1
    return row_offset * (2 * window - 1) + column_offset


def torchvision_to_project(key: str) -> str | None:
    """This backbone's name of a weight of torchvision's Swin classifier.

    Args:
        key: torchvision name, such as ``features.1.0.attn.qkv.weight``.

    Returns:
        Name inside :class:`SwinBackbone`, or None when it has no such weight.
    """
    match = _TORCHVISION_FEATURE.fullmatch(key)
    if match is None:
        return None
    # torchvision alternates: 0 patch embedding, odd numbers stages, even numbers downsampling.
    layer, rest = int(match["layer"]), match["rest"]
    if layer == 0:
        number, _, leaf = rest.partition(".")
        name = f"patch_embed.{_TORCHVISION_PATCH_EMBED.get(number)}.{leaf}"
        return name if _PATCH_EMBED.fullmatch(name) else None
    stage = (layer - 1) // 2
    inside = f"downsample.{rest}" if layer % 2 == 0 else f"blocks.{rest}"
    return f"stages.{stage}.{inside}" if _PROJECT_REST.fullmatch(inside) else None


def project_to_torchvision(key: str) -> str | None:
    """Name in torchvision's Swin classifier of a weight of this backbone.

    Args:
        key: name inside :class:`SwinBackbone`.

    Returns:
        torchvision name, or None when the classifier has none (the output norms).
    """
    if _PATCH_EMBED.fullmatch(key):
        part, leaf = key.split(".")[1:]
        numbers = {name: number for number, name in _TORCHVISION_PATCH_EMBED.items()}
        return f"features.0.{numbers[part]}.{leaf}"
    match = _PROJECT_STAGE.fullmatch(key)
    if match is None or not _PROJECT_REST.fullmatch(match["rest"]):
        return None
    stage = int(match["stage"])
    kind, _, rest = match["rest"].partition(".")
    return f"features.{2 * stage + (1 if kind == 'blocks' else 2)}.{rest}"
