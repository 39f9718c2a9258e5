"""A convolution with its norm folded gives what both gave."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import Conv2d, get_norm
from torch import nn

from optimization_models import perturb
from sparse_detr.inference.optimization.batch_norm_folding import fold_batch_norms


def convolution(norm: str, bias: bool, groups: int = 1) -> nn.Module:
    layer = Conv2d(4, 6 if groups == 1 else 8, 3, bias=bias, groups=groups)
    layer.norm = get_norm(norm, layer.out_channels)
    perturb(layer, torch.Generator().manual_seed(0))
    return layer.double().eval()


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize(("bias", "groups"), [(False, 1), (True, 1), (True, 4)])
def test_folding_is_exact_in_float64(norm: str, bias: bool, groups: int) -> None:
    layer = convolution(norm, bias, groups)
    images = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    expected = layer(images)
    assert fold_batch_norms(layer) == 1
    assert layer.norm is None
    torch.testing.assert_close(layer(images), expected, rtol=0, atol=1e-12)


def test_a_norm_without_weights_is_folded() -> None:
    layer = Conv2d(3, 5, 1, bias=False, norm=nn.BatchNorm2d(5, affine=False)).eval()
    perturb(layer, torch.Generator().manual_seed(0))
    images = torch.randn(1, 3, 4, 4)
    expected = layer(images)
    assert fold_batch_norms(layer) == 1
    torch.testing.assert_close(layer(images), expected)


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 6), nn.BatchNorm2d(6, track_running_stats=False), None]
)
def test_norms_that_depend_on_their_input_stay(norm: nn.Module | None) -> None:
    layer = Conv2d(4, 6, 3, norm=norm).eval()
    assert fold_batch_norms(layer) == 0
    assert layer.norm is norm


def test_every_convolution_of_a_model_is_found() -> None:
    model = nn.Sequential(convolution("BN", True), nn.Sequential(convolution("FrozenBN", False)))
    assert fold_batch_norms(model) == 2
    assert fold_batch_norms(model) == 0
