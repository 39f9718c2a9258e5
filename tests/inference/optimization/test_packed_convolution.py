"""Packed convolutions and residual blocks give what the plain ones gave."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock, ResNet
from torch import Tensor, nn

from sparse_detr.config.loading import load_config
from sparse_detr.inference.optimization.batch_norm_folding import fold_batch_norms
from sparse_detr.inference.optimization.onednn import can_pack
from sparse_detr.inference.optimization.packed_convolution import PackedConvolution
from sparse_detr.inference.optimization.residual_blocks import PackedBlock, pack_resnet

pytestmark = pytest.mark.skipif(
    not can_pack(torch.zeros(1)), reason="torch was built without oneDNN"
)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(kernel_size=1),
        dict(kernel_size=3, padding=1, stride=2),
        dict(kernel_size=3, padding=2, dilation=2, bias=False),
        dict(kernel_size=3, padding=1, groups=2),
    ],
)
@torch.no_grad()
def test_convolutions_of_every_kind_in_changing_sizes(arguments: dict) -> None:
    convolution = nn.Conv2d(8, 12, **arguments)
    packed = PackedConvolution(convolution)
    for size in [(2, 8, 9, 11), (2, 8, 9, 11), (1, 8, 5, 6), (1, 8, 5, 6), (2, 8, 9, 11)]:
        images = torch.randn(size)
        close(packed(images), convolution(images))
        close(packed(images, relu=True), convolution(images).relu())
        close(packed(images.to(memory_format=torch.channels_last)), convolution(images))


@torch.no_grad()
def test_the_sum_is_written_over_the_residual() -> None:
    convolution = nn.Conv2d(8, 12, 3, padding=1)
    images = torch.randn(2, 8, 6, 7).to(memory_format=torch.channels_last)
    residual = torch.randn(2, 12, 6, 7).to(memory_format=torch.channels_last)
    expected = (convolution(images) + residual).relu()
    output = PackedConvolution(convolution).add_onto(residual, images)
    close(output, expected)
    assert output.data_ptr() == residual.data_ptr()


def test_weights_are_kept_arranged_for_a_size_that_comes_again() -> None:
    packed = PackedConvolution(nn.Conv2d(64, 64, 3, padding=1))
    first, other = torch.randn(1, 64, 20, 30), torch.randn(1, 64, 10, 30)
    assert packed._weight_for(first) is packed.weight
    arranged = packed._weight_for(first)
    assert arranged is not packed.weight and packed._weight_for(first) is arranged
    assert packed._weight_for(other) is packed.weight
    assert packed._weight_for(first) is packed.weight


def test_convolutions_that_it_does_not_serve() -> None:
    assert PackedConvolution.serves(nn.Conv2d(4, 4, 3))
    for other in (
        nn.Conv2d(4, 4, 3, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3).double(),
        nn.Linear(4, 4),
    ):
        assert not PackedConvolution.serves(other)


def test_moving_it_where_the_library_cannot_follow_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot be moved .* optimise it there"):
        PackedConvolution(nn.Conv2d(4, 4, 3)).double()


def block(kind: type[nn.Module], channels: int, stride: int) -> nn.Module:
    extra = {"bottleneck_channels": 4} if kind is BottleneckBlock else {}
    made = kind(8, channels, stride=stride, norm="FrozenBN", **extra).eval()
    fold_batch_norms(made)
    return made


@pytest.mark.parametrize("kind", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (16, 1), (16, 2)])
@pytest.mark.parametrize("owns_input", [True, False])
@torch.no_grad()
def test_residual_blocks(
    kind: type[nn.Module], channels: int, stride: int, owns_input: bool
) -> None:
    plain = block(kind, channels, stride)
    packed = PackedBlock(plain, owns_input)
    for size in [(1, 8, 1, 1), (2, 8, 7, 5), (2, 8, 7, 5)]:
        images = torch.randn(size).to(memory_format=torch.channels_last)
        before = images.clone()
        close(packed(images), plain(before.clone()))
        if not owns_input:
            assert torch.equal(images, before)


class SquaringBlock(BasicBlock):
    """A block that computes something of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).square()


@torch.no_grad()
def test_maps_that_are_returned_are_not_written_over_and_unknown_blocks_stay() -> None:
    config = load_config("models/backbones/small_resnet").backbone
    config.out_features = ["stem", "res2", "res3"]
    resnet: ResNet = instantiate(config).eval()
    fold_batch_norms(resnet)
    known = resnet.res3[1]
    resnet.res3[1] = SquaringBlock(known.in_channels, known.out_channels).eval()
    fold_batch_norms(resnet)
    images = torch.randn(1, 3, 45, 64)
    packed = copy.deepcopy(resnet).to(memory_format=torch.channels_last)
    assert pack_resnet(packed)
    assert type(packed.res3[1]) is SquaringBlock and type(packed.res3[0]) is PackedBlock
    expected, actual = resnet(images), packed(images)
    for name in expected:
        close(actual[name], expected[name])


def test_other_modules_are_left_alone() -> None:
    assert not pack_resnet(nn.Sequential(nn.Conv2d(3, 3, 1)))
