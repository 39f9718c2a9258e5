"""The perceptron of the box heads."""

import itertools

import pytest
import torch

from sparse_detr.layers.mlp import MLP


def test_hidden_layers_are_rectified_and_the_last_is_not():
    mlp = MLP(4, 6, 2, num_layers=3)
    rows = torch.randn(5, 4)
    first, second, third = mlp.layers
    torch.testing.assert_close(mlp(rows), third(second(first(rows).relu()).relu()))
    assert (mlp(torch.randn(200, 4)) < 0).any()


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_widths_run_from_input_through_hidden_to_output(num_layers):
    widths = [(layer.in_features, layer.out_features) for layer in MLP(4, 6, 2, num_layers).layers]
    assert len(widths) == num_layers
    assert widths[0][0] == 4 and widths[-1][1] == 2
    assert all(a[1] == b[0] == 6 for a, b in itertools.pairwise(widths))


def test_no_layer_at_all_is_refused():
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        MLP(4, 6, 2, 0)
