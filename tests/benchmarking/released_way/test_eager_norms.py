from __future__ import annotations

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from sparse_detr.benchmarking.released_way.backbone import EagerFrozenBatchNorm, with_eager_norms


def frozen_norm(channels: int) -> FrozenBatchNorm2d:
    norm = FrozenBatchNorm2d(channels)
    for buffer in norm.buffers():
        buffer.copy_(torch.rand(channels) + 0.5)
    return norm


def test_norms_are_replaced_and_give_the_same() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(frozen_norm(4), nn.ReLU()))
    images = torch.randn(2, 3, 8, 8)
    eager = with_eager_norms(backbone)

    assert [type(m) for m in eager[1]] == [EagerFrozenBatchNorm, nn.ReLU]
    assert torch.allclose(eager(images), backbone(images), atol=1e-6)


def test_weights_are_shared_and_the_original_stays() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), frozen_norm(4))
    eager = with_eager_norms(backbone)

    assert eager[0].weight is backbone[0].weight
    assert isinstance(backbone[1], FrozenBatchNorm2d)
