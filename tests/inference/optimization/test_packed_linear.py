"""A packed linear layer is a linear layer, for inputs of every kind."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optimization_models import relative_error
from sparse_detr.inference.optimization.onednn import can_pack
from sparse_detr.inference.optimization.packed_linear import PackedLinear

ACTIVATIONS = {"none": lambda t: t, "relu": F.relu, "gelu": F.gelu}


# 300 rows of 256 x 96 are served by the packed weights, the others by the plain layer.
@pytest.mark.parametrize("shape", [(300, 256), (2, 150, 256), (3, 256), (256,), (0, 256)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_activation(shape: tuple[int, ...], activation: str, bias: bool) -> None:
    linear = nn.Linear(256, 96, bias=bias)
    features = torch.randn(shape)
    with torch.no_grad():
        expected: Tensor = ACTIVATIONS[activation](linear(features))
        actual = PackedLinear(linear, activation)(features)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_rows_of_a_wider_tensor_and_transposed_ones() -> None:
    linear = nn.Linear(128, 64)
    packed = PackedLinear(linear)
    wide, tall = torch.randn(2, 400, 256), torch.randn(2, 128, 400)
    with torch.no_grad():
        for features in (wide[..., 64:192], tall.transpose(1, 2)):
            torch.testing.assert_close(packed(features), linear(features), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not can_pack(torch.zeros(1)), reason="torch was built without oneDNN")
def test_only_large_products_take_the_packed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = F.linear
    monkeypatch.setattr(F, "linear", lambda *a: calls.append(a[0].shape) or plain(*a))
    packed, narrow = PackedLinear(nn.Linear(256, 256)), PackedLinear(nn.Linear(256, 4))
    packed(torch.randn(300, 256))
    assert calls == []
    packed(torch.randn(3, 256))
    narrow(torch.randn(9000, 256))
    assert calls == [(3, 256), (9000, 256)]


def test_another_type_of_the_weights_casts_the_input() -> None:
    linear = nn.Linear(256, 64)
    features = torch.randn(200, 256)
    actual = PackedLinear(linear, dtype=torch.bfloat16)(features)
    assert actual.dtype is torch.bfloat16
    assert 1e-6 < relative_error(actual.float(), linear(features)) < 0.02


def test_weights_that_move_to_another_type_are_packed_anew() -> None:
    linear = nn.Linear(256, 64)
    packed = PackedLinear(linear)
    features = torch.randn(200, 256, dtype=torch.float64)
    torch.testing.assert_close(packed.double()(features), linear.double()(features))
    torch.testing.assert_close(
        packed.float()(features.float()), linear.float()(features.float()), rtol=1e-5, atol=1e-5
    )


def test_it_takes_no_gradients_and_no_unknown_activation() -> None:
    packed = PackedLinear(nn.Linear(4, 4))
    assert not [p for p in packed.parameters() if p.requires_grad]
    assert "activation=none" in repr(packed)
    with pytest.raises(ValueError, match="activation must be none, relu or gelu, got 'tanh'"):
        PackedLinear(nn.Linear(4, 4), "tanh")
