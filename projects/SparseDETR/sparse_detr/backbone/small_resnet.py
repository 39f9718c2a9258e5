"""Stages of a narrow ResNet that trains from scratch in minutes on a CPU.

The network itself is Detectron2's ResNet; this gives its stages from a short list of widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from detectron2.modeling.backbone.resnet import BasicBlock, CNNBlockBase, ResNet


def make_basic_stages(
    stem_width: int, widths: Sequence[int], depths: Sequence[int], norm: str = "BN"
) -> list[list[CNNBlockBase]]:
    """Stages of two-convolution residual blocks, for Detectron2's ResNet.

    The first stage keeps the stride of the stem, each later one halves the map.

    Args:
        stem_width: channels that the stem gives.
        widths: channels per stage, each larger than the one before: a block that changes the
            stride needs its projection shortcut, and that exists only where channels change.
        depths: blocks per stage.
        norm: Detectron2's name of the normalisation.

    Returns:
        One list of blocks per stage.

    Raises:
        ValueError: lists of different length, a stage without blocks, widths that do not grow.
    """
    widths, depths = tuple(widths), tuple(depths)
    if len(widths) != len(depths) or not widths:
        raise ValueError(f"widths and depths must have one entry per stage: {widths}, {depths}")
    if min(depths) < 1:
        raise ValueError(f"depths must give at least one block for each stage: {depths}")
    if any(wide <= narrow for narrow, wide in pairwise(widths)):
        raise ValueError(f"widths must grow from stage to stage: {widths}")
    stages: list[list[CNNBlockBase]] = []
    in_channels = stem_width
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                depth,
                in_channels=in_channels,
                out_channels=width,
                stride_per_block=[1 if index == 0 else 2] + [1] * (depth - 1),
                norm=norm,
            )
        )
        in_channels = width
    return stages
