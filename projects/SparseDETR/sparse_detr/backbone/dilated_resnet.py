"""Stages of a ResNet whose last one dilates instead of halving the map ("DC5").

The network itself is Detectron2's ResNet, and the weights are those of the plain one.
"""

from __future__ import annotations

from detectron2.modeling.backbone.resnet import BottleneckBlock, CNNBlockBase, ResNet


def make_dilated_stages(depth: int, norm: str = "FrozenBN") -> list[list[CNNBlockBase]]:
    """Stages in torchvision's layout with the last one at the stride of the one before.

    Its blocks but the first look two cells apart, as torchvision's ResNet does with
    ``replace_stride_with_dilation``; Detectron2's own dilation would spread the first one too.

    Args:
        depth: 50, 101 or 152.
        norm: Detectron2's name of the normalisation.

    Returns:
        One list of blocks per stage.

    Raises:
        ValueError: Another depth.
    """
    if depth not in (50, 101, 152):
        raise ValueError(f"depth must be 50, 101 or 152, got {depth}")
    *stages, last = ResNet.make_default_stages(depth=depth, stride_in_1x1=False, norm=norm)
    blocks = len(last)
    dilated = ResNet.make_stage(
        BottleneckBlock,
        blocks,
        in_channels=last[0].in_channels,
        out_channels=last[0].out_channels,
        bottleneck_channels=last[0].out_channels // 4,
        stride_per_block=[1] * blocks,
        dilation_per_block=[1] + [2] * (blocks - 1),
        stride_in_1x1=False,
        norm=norm,
    )
    return [*stages, dilated]
