"""Stem and residual blocks of Detectron2's ResNet, made of packed convolutions."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from torch import Tensor, nn

from .packed_convolution import PackedConvolution


class PackedStem(nn.Module):
    """Convolution with ReLU, then the pooling.

    Args:
        stem: With its batch norm folded.
    """

    def __init__(self, stem: BasicStem) -> None:
        super().__init__()
        self.conv1 = PackedConvolution(stem.conv1)
        self.stride = stem.stride

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H / 4, W / 4) from (B, 3, H, W)."""
        features = self.conv1(images, relu=True)
        return F.max_pool2d(features, kernel_size=3, stride=2, padding=1)


class PackedBlock(nn.Module):
    """A chain of convolutions with ReLU, added to a shortcut.

    Args:
        block: Bottleneck or basic block with its batch norms folded.
        owns_input: Whether nobody else reads the input, so that the sum may be written over it.
    """

    def __init__(self, block: BottleneckBlock | BasicBlock, owns_input: bool) -> None:
        super().__init__()
        convolutions = _convolutions(block)
        self.inner = nn.ModuleList(PackedConvolution(c) for c in convolutions[:-1])
        self.last = PackedConvolution(convolutions[-1])
        self.shortcut = None if block.shortcut is None else PackedConvolution(block.shortcut)
        self.owns_input = owns_input
        self.stride = block.stride

    def forward(self, features: Tensor) -> Tensor:
        """(B, C', H', W') from (B, C, H, W), channels last."""
        # Already so, unless a block before this one was not replaced.
        features = inner = features.contiguous(memory_format=torch.channels_last)
        for convolution in self.inner:
            inner = convolution(inner, relu=True)
        if self.shortcut is not None:
            residual = self.shortcut(features)
        else:
            residual = features if self.owns_input else features.clone()
        assert isinstance(self.last, PackedConvolution)
        return self.last.add_onto(residual, inner)


def _convolutions(block: BottleneckBlock | BasicBlock) -> list[nn.Conv2d]:
    count = 3 if isinstance(block, BottleneckBlock) else 2
    return [getattr(block, f"conv{number}") for number in range(1, count + 1)]


def _serves_block(block: nn.Module) -> bool:
    # By the exact class: a subclass may compute something else.
    if type(block) not in (BottleneckBlock, BasicBlock):
        return False
    known = cast(BottleneckBlock | BasicBlock, block)
    parts = [*_convolutions(known), *([] if known.shortcut is None else [known.shortcut])]
    return all(PackedConvolution.serves(part) for part in parts)


def pack_resnet(backbone: nn.Module) -> bool:
    """Replaces stem and blocks of a ResNet, in place, where packing serves them.

    Args:
        backbone: Any module, its batch norms folded.

    Returns:
        Whether it was a ResNet of which at least one part was replaced.
    """
    if type(backbone) is not ResNet:
        return False
    resnet: Any = backbone
    replaced = False
    if type(resnet.stem) is BasicStem and PackedConvolution.serves(resnet.stem.conv1):
        resnet.stem = PackedStem(resnet.stem)
        replaced = True
    for stage in resnet.stages:
        for index, block in enumerate(stage):
            if _serves_block(block):
                # The first block reads the output of the stage before, which may be returned.
                stage[index] = PackedBlock(block, owns_input=index > 0)
                replaced = True
    return replaced
